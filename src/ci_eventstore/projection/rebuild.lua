-- Make a job's hash, sparse index, ring, listings and place in its queue as its stream says: one atomic step, which looks at
-- each of them and changes only what is wrong.
--
-- `rebuild.py` names its keys and arguments.
-- CONST REBUILT_LEASE_MS
-- If it is a copy, the stream and the segments that were staged become the job's first, in place of what the target has of it so far.
--
-- Returns "right" (nothing had to be changed), "mended", or "changed" and changes nothing: it isn't as it was read, it is deleted, or what
-- was staged is gone.

-- Libraries: telling, standing, reading, calls, clock, tickets, queue, mending, sealed

local last = redis.call('XREVRANGE', is_copy == 1 and staged or stream, '+', '-', 'COUNT', 1)
local log = redis.pcall('HGET', hash, 'log')
if (last[1] and last[1][1] or '') ~= place or type(log) ~= 'table' and (log or '') ~= log_before then
  return 'changed'
end
if is_copy == 1 then
  local found = redis.call('HMGET', hash, 'version', 'mark', 'log', 'position', 'part')
  local position, part = end_of_log(found[4], found[5], found[3])
  if redis.call('HEXISTS', gone, id) == 1 or not found[1] and redis.call('EXISTS', stream) == 1 or (found[2] or '') ~= mark_before
    or (found[3] or '') ~= log_before or (position or '') .. '-' .. (part or '') ~= place_before then
    return 'changed'
  end
  if #segments > 0 and redis.call('EXISTS', unpack(KEYS, segments.places())) < #segments then
    return 'changed'
  end
  local error = forbidden('PERSIST', stream) or place ~= '' and forbidden('RENAME', staged, stream)
  if error then
    return error
  end
  -- The first write takes no memory: none after it is refused for want of that.
  redis.call('UNLINK', stream, unpack(KEYS, dropped.places()))
  if place ~= '' then
    redis.call('RENAME', staged, stream)
    redis.call('PERSIST', stream)
  end
  for i = 1, #segments do
    redis.call('PERSIST', segments(i))
  end
  redis.call('ZREM', ended_jobs, ended_before)
end

must_be('hash', hash, ring, tickets, clock)
must_be('list', log_index)
must_be('zset', ids, backlog, leases, ended_jobs, unsealed, unpack(KEYS, leaves.places()))
must_be('zset', unpack(KEYS, joins.places()))
must_be('stream', dispatch)
local known, expected = redis.call('HGETALL', hash), {}
for i = 1, #fields do
  expected[fields.name(i)] = fields.value(i)
end
for i = 1, #known, 2 do
  if not expected[known[i]] then
    mend('HDEL', hash, known[i])
  elseif expected[known[i]] == known[i + 1] then
    expected[known[i]] = nil
  end
end
for name, value in pairs(expected) do
  mend('HSET', hash, name, value)
end

local found, is_right = redis.call('LRANGE', log_index, 0, -1), true
for i = 1, math.max(#found, #entries) do
  is_right = is_right and found[i] == (i <= #entries and entries(i) or nil)
end
if not is_right then
  mend('DEL', log_index)
  for i = 1, #entries do
    redis.call('RPUSH', log_index, entries(i))
  end
end
if has_ring == 0 and redis.call('EXISTS', ring) == 1 then
  mend('DEL', ring)
end

local function stand_in(listing, name, belongs, score)
  local is_there = redis.call('ZSCORE', listing, name)
  if belongs and not is_there then
    mend('ZADD', listing, score or '0', name)
  elseif is_there and not belongs then
    mend('ZREM', listing, name)
  end
end

stand_in(ids, id, true)
stand_in(unsealed, id, ended ~= '' and place ~= '', now_ms)
if ended ~= '' then
  stand_in(ended_jobs, ended, true)
end
for i = 1, #leaves do
  stand_in(leaves(i), member, false)
end
for i = 1, #joins do
  stand_in(joins(i), member, true)
end

local message
if is_queued == 1 then
  stand_in(backlog, waiting, true)
  if not is_waiting(dispatch, ticket_of(tickets, user)) then
    mend('HDEL', tickets, user)
    message = enter_queue(dispatch, backlog, tickets, user, waiting)
  end
elseif redis.call('ZSCORE', backlog, waiting) then
  answer = 'mended'
  leave_queue(dispatch, backlog, tickets, user, waiting)
end
local deadline = redis.call('ZSCORE', leases, id)
if is_claimed == 1 and not deadline then
  local lease_ms = REBUILT_LEASE_MS
  mend('ZADD', leases, advance_clock(clock, lease_ms) + lease_ms, id)
elseif deadline and is_claimed == 0 then
  mend('ZREM', leases, id)
end
if message then
  tell(channel, message)
end
return answer
