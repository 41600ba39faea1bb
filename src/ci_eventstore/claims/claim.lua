-- Give a controller the jobs whose keys it declares, as far as they are still to be had: one atomic step.
--
-- KEYS  1 dispatch, 2 backlog, 3 tickets, 4 leases, 5 clock, 6 controllers' last calls;
--       then for each job: hash, stream, and the listings of queued and of running jobs: all and the owner's
-- ARGV  1 controller, 2 its call: "session-number", a session's numbers go up, 3 milliseconds of a lease, 4 the time, as text,
--       5 the time, as msgpack, 6 channel, 7 how many jobs have expired leases: the first ones
--       then for each job: id, user, member of the listings, token
-- CONST CALLS_TTL_MS
--
-- Returns a list of {job id, the controller that lost it or "", its hash}. A repeated call gets the same jobs, unless they are
-- its no longer; one that comes after a later one of its session gets none.

local dispatch, backlog, tickets, leases, clock, calls = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local controller, number, lease_ms, time, packed_time = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4], ARGV[5]
local channel, expired = ARGV[6], tonumber(ARGV[7])
local BEFORE_KEYS, KEYS_EACH, BEFORE_ARGS, ARGS_EACH = 6, 6, 7, 4
local count = (#KEYS - BEFORE_KEYS) / KEYS_EACH

local function pack_text(text)
  return '\218' .. string.char(math.floor(#text / 256), #text % 256) .. text
end

local function pack_number(number)
  local bytes = ''
  for _ = 1, 4 do
    bytes = string.char(number % 256) .. bytes
    number = math.floor(number / 256)
  end
  return '\206' .. bytes
end

local now = advance_clock(clock, lease_ms)
local claimed, places = {}, {}
local last_call = redis.call('HGET', calls, controller)
local is_repeated = last_call and string.match(last_call, '^%S+') == number
local last_session, last_number = string.match(last_call or '', '^(%x+)-(%d+)')
if last_session == string.match(number, '^%x+') and tonumber(last_number) > tonumber(string.match(number, '%d+$')) then
  return {}
end
if is_repeated then
  for place, lost in string.gmatch(last_call, ' (%d+):(%S*)') do
    places[#places + 1] = {tonumber(place), lost}
  end
end

local function arguments(place)
  local start = BEFORE_ARGS + (place - 1) * ARGS_EACH
  return ARGV[start + 1], ARGV[start + 2], ARGV[start + 3], ARGV[start + 4]
end

local function key(place, which)
  return KEYS[BEFORE_KEYS + (place - 1) * KEYS_EACH + which]
end

local function give(place, ticket, lost)
  local job_id, user, member, token = arguments(place)
  local hash = key(place, 1)
  local found = redis.call('HMGET', hash, 'position', 'part', 'version', 'epoch', 'attempts', 'start_time')
  local position, part = tonumber(found[1]), tonumber(found[2]) + 1
  local epoch, attempts = tonumber(found[4]) + 1, tonumber(found[5]) + 1
  local claim = string.format('%d %s', epoch, token)
  local payload = '\148\1\167claimed' .. packed_time .. '\133' ..
    pack_text('epoch') .. pack_number(epoch) .. pack_text('attempts') .. pack_number(attempts) ..
    pack_text('controller') .. pack_text(controller) .. pack_text('claim') .. pack_text(claim) ..
    pack_text('ticket') .. pack_text(ticket)
  redis.call('XADD', key(place, 2), string.format('%d-%d', position, part), 'e', payload)
  redis.call('PUBLISH', key(place, 2), string.format('%d-%d %d-%d', position, part - 1, position, part))
  redis.call('HSET', hash, 'part', part, 'version', tonumber(found[3]) + 1, 'status', 'running', 'epoch', epoch,
    'attempts', attempts, 'controller', controller, 'claim', claim, 'ticket', ticket)
  if not found[6] then
    redis.call('HSET', hash, 'start_time', time)
  end
  if lost == '' then
    redis.call('ZREM', key(place, 3), member)
    redis.call('ZADD', key(place, 5), 0, member)
    if user ~= '' then
      redis.call('ZREM', key(place, 4), member)
      redis.call('ZADD', key(place, 6), 0, member)
    end
  end
  redis.call('ZADD', leases, now + lease_ms, job_id)
  places[#places + 1] = {place, lost}
end

-- Jobs whose controllers are gone.
for place = 1, is_repeated and 0 or expired do
  local job_id, _, _, token = arguments(place)
  local found = redis.call('HMGET', key(place, 1), 'claim', 'ticket', 'controller')
  local deadline = redis.call('ZSCORE', leases, job_id)
  if deadline and not found[1] then
    redis.call('ZREM', leases, job_id)
  elseif deadline and string.match(found[1], '%S+$') == token then
    -- Repeated, and another call of this name came in between.
    places[#places + 1] = {place, ''}
  elseif deadline and tonumber(deadline) <= now then
    if redis.call('EXISTS', dispatch) == 1 then
      redis.pcall('XCLAIM', dispatch, 'controllers', controller, 0, found[2], 'JUSTID')
    end
    give(place, found[2], found[3])
  end
end

-- Jobs that wait: the next ticket's user's next job has to be one of those declared.
local declared = {}
for place = expired + 1, count do
  local _, user, member = arguments(place)
  declared[user .. '\0' .. member] = place
end
local last = not is_repeated and count > expired and last_ticket(dispatch)
while last do
  local ticket = redis.call('XRANGE', dispatch, '(' .. last, '+', 'COUNT', 1)[1]
  local user = ticket and ticket[2][2]
  local waiting = ticket and jobs_of(backlog, user, 1)[1]
  local place = waiting and declared[waiting]
  if not ticket or (waiting and not place) then
    break
  end
  last = ticket[1]
  redis.call('XREADGROUP', 'GROUP', 'controllers', controller, 'COUNT', 1, 'STREAMS', dispatch, '>')
  if redis.call('HGET', tickets, user) == last then
    redis.call('HDEL', tickets, user)
  end
  if waiting then
    redis.call('ZREM', backlog, waiting)
    declared[waiting] = nil
  end
  if waiting and redis.call('HGET', key(place, 1), 'status') == 'queued' then
    give(place, last, '')
  else
    redis.call('XACK', dispatch, 'controllers', last)
    redis.call('XDEL', dispatch, last)
  end
  if redis.call('HEXISTS', tickets, user) == 0 and #jobs_of(backlog, user, 1) > 0 then
    issue_ticket(dispatch, tickets, user)
  end
end
if last and redis.call('XRANGE', dispatch, '(' .. last, '+', 'COUNT', 1)[1] then
  -- For others: this controller has all that it wanted.
  redis.call('PUBLISH', channel, 'ticket')
end

local remembered = number
for i, pair in ipairs(places) do
  local place, lost = pair[1], pair[2]
  local job_id, _, _, token = arguments(place)
  local fields = redis.call('HGETALL', key(place, 1))
  remembered = remembered .. ' ' .. place .. ':' .. lost
  for field = 1, #fields, 2 do
    if fields[field] == 'claim' and string.match(fields[field + 1], ' (%S+)$') == token then
      claimed[#claimed + 1] = {job_id, lost, fields}
    end
  end
end
if not is_repeated then
  redis.call('HSET', calls, controller, remembered)
  redis.call('PEXPIRE', calls, CALLS_TTL_MS)
end
return claimed
