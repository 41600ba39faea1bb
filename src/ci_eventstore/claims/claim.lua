-- Give a controller the jobs whose keys it declares, as far as they are still to be had: one atomic step.
--
-- KEYS  1 dispatch, 2 backlog, 3 tickets, 4 leases, 5 clock, 6 controllers' last calls, 7 and 8 listings of queued and of
--       running jobs; then for each job: hash, stream; then for each owner: listings of the owner's queued and running jobs
-- ARGV  1 controller, 2 its call: "session-number", a session's numbers go up, 3 milliseconds of a lease, 4 the time, as text,
--       5 the time, as msgpack, 6 channel, 7 how many jobs, 8 how many of them have expired leases: the first ones,
--       9 names of the hash's fields that are to be told, joined by spaces
--       then for each job: id, user, member of the listings, token, owner: 1, 2 .., or 0 for none
-- CONST CALLS_TTL_MS
--
-- Returns a list of {job id, the controller that lost it or "", its hash's fields}. A repeated call gets the same jobs, unless
-- they are its no longer; one that comes after a later one of its session gets none.

-- Libraries: telling, standing, clock, tickets, payloads

local dispatch, backlog, tickets, leases, clock, calls = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local controller, number, lease_ms, time, packed_time = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4], ARGV[5]
local channel, count, expired = ARGV[6], tonumber(ARGV[7]), tonumber(ARGV[8])
local BEFORE_KEYS, KEYS_EACH, BEFORE_ARGS, ARGS_EACH = 8, 2, 9, 5

local names, at = {}, {}
for name in string.gmatch(ARGV[9], '%S+') do
  names[#names + 1], at[name] = name, #names + 1
end

local now = advance_clock(clock, lease_ms)
-- Places of the jobs that are given, their states by place, and who lost them.
local places, states, losers = {}, {}, {}
local last_call = redis.call('HGET', calls, controller)
local is_repeated = last_call and string.match(last_call, '^%S+') == number
local last_session, last_number = string.match(last_call or '', '^(%x+)-(%d+)')
if last_session == string.match(number, '^%x+') and tonumber(last_number) > tonumber(string.match(number, '%d+$')) then
  return {}
end

local function arguments(place)
  return unpack(ARGV, BEFORE_ARGS + (place - 1) * ARGS_EACH + 1, BEFORE_ARGS + place * ARGS_EACH)
end

local function key(place, which)
  return KEYS[BEFORE_KEYS + (place - 1) * KEYS_EACH + which]
end

local function read(place)
  states[place] = redis.call('HMGET', key(place, 1), unpack(names))
  return states[place]
end

local payload_of = claimed_payloads(packed_time, controller)
local leased, messages = {}, {}

-- Make a job whose state was read the controller's.
local function give(place, ticket, lost)
  local job_id, _, _, token = arguments(place)
  local hash, state = key(place, 1), states[place]
  local part, version = string.format('%d', state[at.part] + 1), string.format('%d', state[at.version] + 1)
  local epoch, attempts = state[at.epoch] + 1, state[at.attempts] + 1
  local claim = string.format('%d %s', epoch, token)
  local payload = payload_of(epoch, attempts, claim, ticket)
  local entry, mark = state[at.position] .. '-' .. part, mark_of(payload)
  redis.call('XADD', key(place, 2), entry, 'e', payload)
  messages[#messages + 1] = {key(place, 2), state[at.position] .. '-' .. state[at.part], entry .. ':' .. #payload, payload,
    state[at.mark] or ''}
  epoch, attempts = string.format('%d', epoch), string.format('%d', attempts)
  state[at.start_time] = state[at.start_time] or time
  redis.call('HSET', hash, 'part', part, 'version', version, 'status', 'running', 'epoch', epoch, 'attempts', attempts,
    'controller', controller, 'claim', claim, 'ticket', ticket, 'start_time', state[at.start_time], 'mark', mark)
  state[at.mark], state[at.part], state[at.version], state[at.status], state[at.epoch] = mark, part, version, 'running', epoch
  state[at.attempts], state[at.controller], state[at.claim], state[at.ticket] = attempts, controller, claim, ticket
  leased[#leased + 1] = string.format('%.0f', now + lease_ms)
  leased[#leased + 1] = job_id
  places[#places + 1], losers[place] = place, lost
end

-- Jobs whose controllers are gone.
for place = 1, is_repeated and 0 or expired do
  local job_id, _, _, token = arguments(place)
  local state, deadline = read(place), redis.call('ZSCORE', leases, job_id)
  local claim, ticket, lost = state[at.claim], state[at.ticket], state[at.controller]
  if deadline and not claim then
    redis.call('ZREM', leases, job_id)
  elseif deadline and string.match(claim, '%S+$') == token then
    -- Repeated, and another call of this name came in between.
    places[#places + 1], losers[place] = place, ''
  elseif deadline and tonumber(deadline) <= now then
    if redis.call('EXISTS', dispatch) == 1 then
      redis.pcall('XCLAIM', dispatch, 'controllers', controller, 0, ticket, 'JUSTID')
    end
    give(place, ticket, lost)
  end
end
local function save_leases()
  if leased[1] then
    redis.call('ZADD', leases, unpack(leased))
    leased = {}
  end
end

save_leases()
-- Others whose leases have run out since the caller asked come first: it has to ask again.
local has_lost_jobs = redis.call('ZRANGEBYSCORE', leases, '-inf', now, 'LIMIT', 0, 1)[1]

-- Jobs that wait. First what is to be done, ticket by ticket, in the order in which the group hands them out: the next ticket's
-- user's next job has to be one of those declared. Then it is done, in as few commands as it takes.
local declared, declared_of = {}, {}
for place = expired + 1, count do
  local _, user, member = arguments(place)
  declared[user .. '\0' .. member] = place
  declared_of[user] = (declared_of[user] or 0) + 1
end

local last = not is_repeated and not has_lost_jobs and count > expired and last_ticket(dispatch)
-- What each user waits for, with the ticket that nobody has taken yet; users of the tickets that are issued here; what is taken.
local lines, issued, taken, used_issued = {}, {}, {}, 0

local function line_of(user)
  if not lines[user] then
    local jobs = jobs_of(backlog, user, (declared_of[user] or 0) + 1)
    lines[user] = {jobs = jobs, turn = 1, ticket = redis.call('HGET', tickets, user), issued = 0}
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
  taken[#taken + 1] = {waiting, place and read(place)[at.status] == 'queued' and place}
  if not line.ticket and line.issued == 0 and line.jobs[line.turn] then
    issued[#issued + 1] = user
    line.issued = #issued
  end
end

local leaving, dead, moved, joining = {}, {}, {}, {}
if taken[1] then
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
  local entries = redis.call('XREADGROUP', 'GROUP', 'controllers', controller, 'COUNT', #taken, 'STREAMS', dispatch, '>')[1][2]
  for i, pair in ipairs(taken) do
    local waiting, place, ticket = pair[1], pair[2], entries[i][1]
    if waiting then
      leaving[#leaving + 1] = waiting
    end
    if place then
      give(place, ticket, '')
      local _, _, member, _, owner = arguments(place)
      moved[#moved + 1] = member
      joining[#joining + 1] = '0'
      joining[#joining + 1] = member
      if owner ~= '0' then
        local owner_key = BEFORE_KEYS + KEYS_EACH * count + 2 * owner
        redis.call('ZREM', KEYS[owner_key - 1], member)
        redis.call('ZADD', KEYS[owner_key], 0, member)
      end
    else
      dead[#dead + 1] = ticket
    end
  end
end
if leaving[1] then
  redis.call('ZREM', backlog, unpack(leaving))
end
if moved[1] then
  redis.call('ZREM', KEYS[7], unpack(moved))
  redis.call('ZADD', KEYS[8], unpack(joining))
end
save_leases()
if dead[1] then
  redis.call('XACK', dispatch, 'controllers', unpack(dead))
  redis.call('XDEL', dispatch, unpack(dead))
end
if is_repeated then
  for text, lost in string.gmatch(last_call, ' (%d+):(%S*)') do
    local place = tonumber(text)
    places[#places + 1], losers[place] = place, lost
    read(place)
  end
end
local claimed, remembered = {}, {number}
for _, place in ipairs(places) do
  local job_id, _, _, token = arguments(place)
  remembered[#remembered + 1] = place .. ':' .. losers[place]
  if string.match(states[place][at.claim] or '', ' (%S+)$') == token then
    claimed[#claimed + 1] = {job_id, losers[place], states[place]}
  end
end
if not is_repeated then
  redis.call('HSET', calls, controller, table.concat(remembered, ' '))
  redis.call('PEXPIRE', calls, CALLS_TTL_MS)
end

for _, message in ipairs(messages) do
  tell_entries(unpack(message))
end
if has_more then
  -- For others: this controller has all that it wanted.
  tell(channel, 'ticket')
end
return claimed
