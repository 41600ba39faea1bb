-- Give a controller the jobs whose keys it declares, as far as they are still to be had: one atomic step.
--
-- KEYS  1 dispatch, 2 backlog, 3 tickets, 4 leases, 5 clock, 6 controllers' last calls, 7 and 8 listings of queued and of
--       running jobs; then for each job: hash, stream; then for each owner: listings of the owner's queued and running jobs
-- ARGV  1 controller, 2 its call: "session-number", a session's numbers go up, 3 milliseconds of a lease, 4 the time, as text,
--       5 the time, as msgpack, 6 channel, 7 how many jobs, 8 how many of them have expired leases: the first ones;
--       then for each job: id, user, member of the listings, token, owner: 1, 2 .., or 0 for none
-- CONST CALLS_TTL_MS, CLAIMED_FIELDS: names of the hash's fields that are to be told
--
-- Returns {claimed, damaged}: a list of {job id, the controller that lost it or "", its hash's fields}, and a list of
-- {job id, what is wrong}: a job that can't be read loses its place in the queue, or its lease, until it is mended.
-- A repeated call gets the same jobs, unless they are its no longer; one that comes after a later one of its session gets none.

-- Libraries: telling, standing, clock, tickets, payloads, calls

local dispatch, backlog, tickets, leases, clock, calls = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local controller, call, lease_ms, time, packed_time = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4], ARGV[5]
local channel, count, expired = ARGV[6], tonumber(ARGV[7]), tonumber(ARGV[8])
local BEFORE_KEYS, KEYS_EACH, BEFORE_ARGS, ARGS_EACH = 8, 2, 8, 5
local TYPES = {'stream', 'zset', 'hash', 'zset', 'hash', 'hash'}
local STATUSES = {queued = true, running = true, completed = true, failed = true, cancelled = true}

local JOB_ID, USER, MEMBER, TOKEN, OWNER = 1, 2, 3, 4, 5

local function argument(place, which)
  return ARGV[BEFORE_ARGS + (place - 1) * ARGS_EACH + which]
end

-- Numbers as texts: jobs that are given together have mostly the same ones.
local texts = {}
local function text_of(number)
  local text = texts[number] or string.format('%d', number)
  texts[number] = text
  return text
end

-- Hashes by place; what is wrong with jobs, in turn.
local states, damages = {}, {}
local function report(place, what)
  damages[#damages + 1] = {argument(place, JOB_ID), what}
end

-- Returns a job's hash, or nothing and reports what in it can't be read. Whether its stream is there shows when it is written.
local function read(place)
  local state = read_all(KEYS[BEFORE_KEYS + (place - 1) * KEYS_EACH + 1])
  states[place] = state
  local wrong = not state and 'its hash'
  if not wrong and state.status then
    wrong = not STATUSES[state.status] and 'status'
    if not are_digits(state.position, state.part, state.version, state.epoch, state.attempts) then
      for _, name in ipairs({'position', 'part', 'version', 'epoch', 'attempts'}) do
        wrong = wrong or not whole(state[name]) and name
      end
    end
  end
  if wrong then
    report(place, wrong)
    return nil
  end
  return state
end

local now, last, answer, standing, number, has_tickets
-- What is given: place, ticket, who lost it. By whom the places were lost that are told.
local given, places, losers = {}, {}, {}
local function give(place, ticket, lost)
  given[#given + 1] = {place, ticket, lost}
  places[#places + 1], losers[place] = place, lost
end

-- Jobs whose controllers are gone; those that are no longer leased, or can't be read, are dropped.
local dropped, lapsed = {}, 0
local function take_lost_jobs()
  for place = 1, expired do
    local job_id, token = argument(place, JOB_ID), argument(place, TOKEN)
    local deadline = redis.call('ZSCORE', leases, job_id)
    local state = deadline and read(place)
    local claim = state and state.claim
    lapsed = lapsed + (deadline and tonumber(deadline) <= now and 1 or 0)
    if deadline and not claim then
      dropped[#dropped + 1] = job_id
    elseif claim and string.match(claim, '%S+$') == token then
      -- Repeated, and another call of this name came in between.
      places[#places + 1], losers[place] = place, ''
    elseif claim and tonumber(deadline) <= now then
      give(place, state.ticket or '', state.controller or '')
    end
  end
end

local error = attempt(function()
  now, has_tickets = advance_clock(clock, lease_ms), redis.call('EXISTS', dispatch) == 1
  local kept
  kept, number = of_session(redis.call('HGET', calls, controller), call)
  standing, answer = recall(kept, number)
  if standing ~= 'late' and standing ~= 'repeated' then
    take_lost_jobs()
    -- Others whose leases have run out since the caller asked come first: it has to ask again.
    local is_its_turn = count > expired and redis.call('ZCOUNT', leases, '-inf', now) == lapsed
    last = is_its_turn and last_ticket(dispatch)
  end
end)
if error then
  return named(error, TYPES, 'zset')
elseif standing == 'late' then
  return {{}, {}}
end

-- Jobs that wait. First what is to be done, ticket by ticket, in the order in which the group hands them out: the next ticket's
-- user's next job has to be one of those declared. Then it is done, in as few commands as it takes.
local declared, declared_of = {}, {}
for place = expired + 1, count do
  local user = argument(place, USER)
  declared[user .. '\0' .. argument(place, MEMBER)] = place
  declared_of[user] = (declared_of[user] or 0) + 1
end

-- What each user waits for, with the ticket that nobody has taken yet; users of the tickets that are issued here; what is taken.
local lines, issued, taken, used_issued = {}, {}, {}, 0

local function line_of(user)
  if not lines[user] then
    local jobs = jobs_of(backlog, user, (declared_of[user] or 0) + 1)
    lines[user] = {jobs = jobs, turn = 1, ticket = ticket_of(tickets, user), issued = 0}
  end
  return lines[user]
end

local fetched, next_fetched = {}, 1
local function next_ticket()
  if not fetched[next_fetched] and next_fetched ~= 0 then
    fetched, next_fetched = redis.call('XRANGE', dispatch, '(' .. last, '+', 'COUNT', count - expired + 1), 1
    if not fetched[1] then
      next_fetched = 0
    end
  end
  if next_fetched > 0 then
    return fetched[next_fetched][1], fetched[next_fetched][2][2]
  end
  return nil, issued[used_issued + 1]
end

local has_more = false
local function take_tickets()
  while last do
    local ticket, user = next_ticket()
    local line = user and line_of(user)
    local waiting = line and line.jobs[line.turn]
    local place = waiting and declared[waiting]
    has_more = user ~= nil
    if not user or (waiting and not place) then
      break
    end
    if ticket then
      last, next_fetched = ticket, next_fetched + 1
    else
      used_issued = used_issued + 1
    end
    if ticket and line.ticket == ticket or not ticket and line.issued == used_issued then
      line.ticket, line.issued = false, 0
    end
    if waiting then
      line.turn = line.turn + 1
    end
    local state = place and read(place)
    taken[#taken + 1] = {waiting, state and state.status == 'queued' and place}
    if not line.ticket and line.issued == 0 and line.jobs[line.turn] then
      issued[#issued + 1] = user
      line.issued = #issued
    end
  end
end

-- Issue what has to be issued, and take it all; returns the entries.
local function fetch()
  local issued_ids = {}
  for i, user in ipairs(issued) do
    issued_ids[i] = redis.call('XADD', dispatch, '*', 'user', user)
  end
  for user, line in pairs(lines) do
    if line.issued > 0 then
      redis.call('HSET', tickets, user, issued_ids[line.issued])
    elseif not line.ticket then
      redis.call('HDEL', tickets, user)
    end
  end
  return redis.call('XREADGROUP', 'GROUP', 'controllers', controller, 'COUNT', #taken, 'STREAMS', dispatch, '>')[1][2]
end

local payload_of_claim, deadline = claimed_payloads(packed_time, controller), string.format('%d', now + lease_ms)
local leased, messages = {}, {}

-- Make a job the controller's; returns whether it is.
local function write(place, ticket)
  local hash, stream = KEYS[BEFORE_KEYS + (place - 1) * KEYS_EACH + 1], KEYS[BEFORE_KEYS + place * KEYS_EACH]
  local state = states[place]
  local epoch, attempts = state.epoch + 1, state.attempts + 1
  local part, version, claim = text_of(state.part + 1), text_of(state.version + 1), text_of(epoch) .. ' ' .. argument(place, TOKEN)
  local payload = payload_of_claim(epoch, attempts, claim, ticket)
  local entry, mark, started_at = state.position .. '-' .. part, mark_of(payload), state.start_time or time
  local written = redis.pcall('XADD', stream, 'NOMKSTREAM', entry, 'e', payload)
  if written and not written.err then
    epoch, attempts = text_of(epoch), text_of(attempts)
    written = redis.pcall('HSET', hash, 'part', part, 'version', version, 'status', 'running', 'epoch', epoch, 'attempts', attempts,
      'controller', controller, 'claim', claim, 'ticket', ticket, 'start_time', started_at, 'mark', mark)
  end
  if type(written) ~= 'number' then
    state.claim = nil
    report(place, written and written.err or 'its events')
    return false
  end
  messages[#messages + 1] = stream
  messages[#messages + 1] = state.position .. '-' .. state.part .. ' ' .. entry .. ':' .. text_of(#payload) .. '\n' .. payload
    .. (state.mark or '')
  state.mark, state.part, state.version, state.status, state.epoch = mark, part, version, 'running', epoch
  state.attempts, state.controller, state.claim, state.ticket, state.start_time = attempts, controller, claim, ticket, started_at
  leased[#leased + 1], leased[#leased + 2] = deadline, argument(place, JOB_ID)
  return true
end

local first_waiting = #given
error = attempt(take_tickets) or unreadable('ZCARD', unpack(KEYS, 7, 8))
  or unreadable('ZCARD', unpack(KEYS, BEFORE_KEYS + KEYS_EACH * count + 1))
if not error and (given[1] or taken[1] or dropped[1]) then
  error = forbidden('XADD', dispatch, '*', '', '') or forbidden('ZADD', leases, '0', '') or forbidden('ZREM', leases, '')
    or forbidden('XCLAIM', dispatch, '', '', '0', '0-0') or forbidden('HDEL', tickets, '')
    or forbidden('XREADGROUP', 'GROUP', '', '', 'STREAMS', dispatch, '>') or forbidden('XACK', dispatch, '', '0-0')
    or forbidden('XDEL', dispatch, '0-0')
end
if error then
  return named(error, TYPES, 'zset')
end
for i, pair in ipairs(taken) do
  if pair[2] then
    give(pair[2], i, '')
  end
end

-- The call is noted first, so that a repeated one gets what this one has got, whatever happens to it.
local leaving, dead, moved, joining, owned = {}, {}, {}, {}, {}
error = attempt(function()
  if standing == 'repeated' then
    return
  end
  local remembered = {call}
  for _, place in ipairs(places) do
    remembered[#remembered + 1] = text_of(place) .. ':' .. losers[place]
  end
  redis.call('HSET', calls, controller, table.concat(remembered, ' '))
  redis.call('PEXPIRE', calls, CALLS_TTL_MS)
  local entries = taken[1] and fetch() or {}
  for i, pair in ipairs(taken) do
    leaving[#leaving + 1] = pair[1] or nil
    if not pair[2] then
      dead[#dead + 1] = entries[i][1]
    end
  end
  for i, one in ipairs(given) do
    local place, ticket = one[1], one[2]
    if i > first_waiting then
      ticket = entries[ticket][1]
    elseif is_ticket(ticket) and has_tickets then
      redis.pcall('XCLAIM', dispatch, 'controllers', controller, 0, ticket, 'JUSTID')
    end
    local is_given = write(place, ticket)
    if is_given and i > first_waiting then
      local member, owner = argument(place, MEMBER), argument(place, OWNER)
      moved[#moved + 1], joining[#joining + 1], joining[#joining + 2] = member, '0', member
      if owner ~= '0' then
        local line = owned[owner] or {members = {}, joining = {}}
        local members, joined = line.members, line.joining
        owned[owner], members[#members + 1], joined[#joined + 1], joined[#joined + 2] = line, member, '0', member
      end
    elseif i > first_waiting then
      dead[#dead + 1] = ticket
    elseif not is_given then
      dropped[#dropped + 1] = argument(place, JOB_ID)
    end
  end
  if leaving[1] then
    redis.call('ZREM', backlog, unpack(leaving))
  end
  if moved[1] then
    redis.call('ZREM', KEYS[7], unpack(moved))
    redis.call('ZADD', KEYS[8], unpack(joining))
  end
  for owner, line in pairs(owned) do
    local owner_key = BEFORE_KEYS + KEYS_EACH * count + 2 * owner
    redis.call('ZREM', KEYS[owner_key - 1], unpack(line.members))
    redis.call('ZADD', KEYS[owner_key], unpack(line.joining))
  end
  if leased[1] then
    redis.call('ZADD', leases, unpack(leased))
  end
  if dropped[1] then
    redis.call('ZREM', leases, unpack(dropped))
  end
  if dead[1] then
    redis.call('XACK', dispatch, 'controllers', unpack(dead))
    redis.call('XDEL', dispatch, unpack(dead))
  end
end)
if error and not messages[1] then
  return named(error, TYPES, 'zset')
elseif error then
  damages[#damages + 1] = {'', error.err}
end

-- As `telling.lua` has them; of many jobs at once.
for i = 1, #messages, 2 do
  redis.pcall('PUBLISH', messages[i], messages[i + 1])
end
if has_more then
  -- For others: this controller has all that it wanted.
  tell(channel, 'ticket')
end
if standing == 'repeated' then
  for text, lost in string.gmatch(' ' .. answer, ' (%d+):(%S*)') do
    local place = tonumber(text)
    if place <= count and read(place) then
      places[#places + 1], losers[place] = place, lost
    end
  end
end
local claimed = {}
for _, place in ipairs(places) do
  local state, token, values = states[place], argument(place, TOKEN), {}
  if string.sub(state.claim or '', -#token) == token then
    for i, name in ipairs(CLAIMED_FIELDS) do
      values[i] = state[name] or false
    end
    claimed[#claimed + 1] = {argument(place, JOB_ID), losers[place], values}
  end
end
return {claimed, damages}
