-- Whose turn it is: tickets one by one, in the order in which the group hands them out, each for its user's next job. First
-- `take_turns` decides, then `fetch_tickets` does it, in as few commands as it takes.

-- Returns nothing where there is no queue. At most `count` tickets are taken.
local function turns_of(dispatch, backlog, tickets, count)
  local last = last_ticket(dispatch)
  return last and {last = last, count = count, dispatch = dispatch, backlog = backlog, tickets = tickets, found = {}, next = 1,
    jobs = {}, wanted = {}, lines = {}, issued = {}, used = 0, taken = {}} or nil
end

-- Note that a job may be given.
local function declare(turns, job)
  turns.jobs[job.waiting] = job
  turns.wanted[job.user] = (turns.wanted[job.user] or 0) + 1
end

-- What a user waits for, with the ticket that nobody has taken yet.
local function line_of(turns, user)
  local line = turns.lines[user]
  if not line then
    local waiting = jobs_of(turns.backlog, user, (turns.wanted[user] or 0) + 1)
    line = {waiting = waiting, turn = 1, ticket = ticket_of(turns.tickets, user), issued = 0}
    turns.lines[user] = line
  end
  return line
end

-- Returns the next ticket and its user; of one that is going to be issued here, only the user.
local function next_ticket(turns)
  if turns.next and not turns.found[turns.next] then
    turns.found = redis.call('XRANGE', turns.dispatch, '(' .. turns.last, '+', 'COUNT', turns.count + 1)
    turns.next = turns.found[1] and 1 or nil
  end
  local entry = turns.next and turns.found[turns.next]
  return entry and entry[1] or nil, entry and entry[2][2] or turns.issued[turns.used + 1]
end

-- Take tickets until one is for a job that may not be given. `taken` gets for each the member of the backlog, if its user waits, and the
-- job. Returns whether there are more tickets.
local function take_turns(turns)
  while true do
    local ticket, user = next_ticket(turns)
    local line = user and line_of(turns, user)
    local waiting = line and line.waiting[line.turn]
    local job = waiting and turns.jobs[waiting]
    if not user or waiting and not job then
      return user ~= nil
    end
    if ticket then
      turns.last, turns.next = ticket, turns.next + 1
    else
      turns.used = turns.used + 1
    end
    if ticket and line.ticket == ticket or not ticket and line.issued == turns.used then
      line.ticket, line.issued = false, 0
    end
    line.turn = waiting and line.turn + 1 or line.turn
    turns.taken[#turns.taken + 1] = {waiting = waiting, job = job}
    if not line.ticket and line.issued == 0 and line.waiting[line.turn] then
      turns.issued[#turns.issued + 1], line.issued = user, #turns.issued + 1
    end
  end
end

-- Issue what has to be issued, and take it all for a controller; returns the entries in the order of `taken`.
local function fetch_tickets(turns, controller)
  local ids = {}
  for i, user in ipairs(turns.issued) do
    ids[i] = redis.call('XADD', turns.dispatch, '*', 'user', user)
  end
  for user, line in pairs(turns.lines) do
    if line.issued > 0 then
      redis.call('HSET', turns.tickets, user, ids[line.issued])
    elseif not line.ticket then
      redis.call('HDEL', turns.tickets, user)
    end
  end
  return redis.call('XREADGROUP', 'GROUP', 'controllers', controller, 'COUNT', #turns.taken, 'STREAMS', turns.dispatch,
    '>')[1][2]
end
