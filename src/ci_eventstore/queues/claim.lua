-- Give a controller the jobs whose keys it declares, as far as they are still to be had: one atomic step.
--
-- `claim.py` names its keys and arguments. Of the jobs, the leases of the first `expired` ones have run out; the others wait.
-- CONST CALLS_TTL_MS; CLAIMED_FIELDS: names of the hash's fields that are to be told; CLAIM_FIELDS: what the fold says
--
-- Returns {claimed, damaged}: a list of {job id, the controller that lost it or "", its hash's fields}, and a list of
-- {job id, what is wrong}: a job that can't be read loses its place in the queue, or its lease, until it is mended.
-- A repeated call gets the same jobs, unless they are its no longer; one that comes after a later one of its session gets none.
-- Libraries: telling, standing, reading, clock, tickets, turns, moves, payloads, claiming, lapsed, claim_answers, calls, facts

local TYPES = {'stream', 'zset', 'hash', 'zset', 'hash', 'hash', 'zset', 'zset', 'stream'}
local candidates, given, dropped, damages, taken = {}, {}, {}, {}, {}
for place = 1, #jobs do
  local owner = jobs.owner(place)
  candidates[place] = {place = place, id = jobs.id(place), waiting = jobs.waiting(place), token = jobs.token(place),
    hash = jobs.hash(place), stream = jobs.stream(place), owner = owner, user = owner > 0 and users(owner) or ''}
end

-- Give jobs that wait: the next ticket's user's next job has to be one of those declared. Returns tickets and whether there are more.
local function give_waiting(turns)
  for place = expired + 1, #jobs do
    declare(turns, candidates[place])
  end
  local has_more = take_turns(turns)
  for place, ticket in ipairs(turns.taken) do
    local job = ticket.job
    local state = job and read_job(job, damages)
    ticket.is_dead = not state or state.status ~= 'queued'
    if not ticket.is_dead then
      given[#given + 1], job.turn = job, place
    end
  end
  return turns.taken, has_more
end

local now, lapsed, turns, has_more, standing, answer, has_tickets
local error = attempt(function()
  now, has_tickets = advance_clock(clock, lease_ms), redis.call('EXISTS', dispatch) == 1
  standing, answer = recall(of_session(redis.call('HGET', calls, controller), call))
  if standing ~= 'late' and standing ~= 'repeated' then
    lapsed, dropped = give_lapsed(candidates, expired, leases, now, given, damages)
    -- Others whose leases have run out since the caller asked come first: it has to ask again.
    if #jobs > expired and redis.call('ZCOUNT', leases, '-inf', now) == lapsed then
      turns = turns_of(dispatch, backlog, tickets, #jobs - expired)
      if turns then
        taken, has_more = give_waiting(turns)
      end
    end
  end
end)
error = error or unreadable('ZCARD', queued, running, unpack(KEYS, owned.places()))
error = error or (given[1] or taken[1] or dropped[1]) and unclaimable(dispatch, tickets, leases) or nil
if error then
  return named(error, TYPES, 'zset')
elseif standing == 'late' then
  return {{}, {}}
end

local leased, messages, moves, leaving, dead, started = {}, {}, {}, {}, {}, {}
local claim, deadline = claims_of(controller, time, packed_time), string.format('%d', now + lease_ms)

local function write(job, entries)
  local ticket = job.turn and entries[job.turn][1] or job.ticket
  if not job.turn and is_ticket(ticket) and has_tickets then
    redis.pcall('XCLAIM', dispatch, 'controllers', controller, 0, ticket, 'JUSTID')
  end
  local message, refused, is_added = claim(job, ticket)
  started[#started + 1] = is_added and job.id or nil
  if message then
    messages[#messages + 1], messages[#messages + 2] = job.stream, message
    leased[#leased + 1], leased[#leased + 2] = deadline, job.id
    if job.turn then
      note_move(moves, job.owner, jobs.member(job.place))
    end
  else
    damages[#damages + 1] = {job.id, refused}
    local list = job.turn and dead or dropped
    list[#list + 1] = job.turn and ticket or job.id
  end
end

local function write_all()
  -- The call is noted first, so that a repeated one gets what this one has got, whatever happens to it.
  redis.call('HSET', calls, controller, remembered(call, given))
  redis.call('PEXPIRE', calls, CALLS_TTL_MS)
  local entries = taken[1] and fetch_tickets(turns, controller)
  for place, ticket in ipairs(taken) do
    leaving[#leaving + 1] = ticket.waiting
    dead[#dead + 1] = ticket.is_dead and entries[place][1] or nil
  end
  for _, job in ipairs(given) do
    if not job.is_held then
      write(job, entries)
    end
  end
  call_with('ZREM', backlog, leaving)
  for whose, one in pairs(moves) do
    carry_out(one, whose > 0 and owned.queued(whose) or queued, whose > 0 and owned.running(whose) or running)
  end
  call_with('ZADD', leases, leased)
  call_with('ZREM', leases, dropped)
  remove_tickets(dispatch, dead)
end

if standing == 'repeated' then
  given = given_before(answer, candidates, damages)
else
  error = tell_and_write(facts, 'sr', starting_in(given), started, write_all)
end
if error and not messages[1] then
  return named(error, TYPES, 'zset')
elseif error then
  damages[#damages + 1] = {'', error.err}
end
tell_all(messages)
if has_more then
  -- For others: this controller has all that it wanted.
  tell(channel, 'ticket')
end
return {answered(given, {CLAIMED_FIELDS}), damages}
