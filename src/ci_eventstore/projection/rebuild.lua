-- Write a job's hash, sparse index, listings and place in its queue as its stream says: one atomic step.
--
-- KEYS  1 hash, 2 stream, 3 sparse index, 4 ids, 5 dispatch, 6 backlog, 7 tickets, 8 leases, 9 clock,
--       10.. listings: first those to leave, then those to join
-- ARGV  1 the stream's last id that was folded, 2 job id, 3 member of the listings, 4 user, 5 whether it is queued, 6 whether
--       it is claimed, 7 the queue's channel, 8 how many listings to leave, 9 how many fields; then these, as names and
--       values; then the sparse index's entries
-- CONST REBUILT_LEASE_MS
--
-- Returns 1; or 0 and changes nothing: the stream has gone on.

-- Libraries: telling, standing, clock, tickets, queue

local hash, stream, index, ids = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local dispatch, backlog, tickets, leases, clock = KEYS[5], KEYS[6], KEYS[7], KEYS[8], KEYS[9]
local user, is_queued, is_claimed, channel = ARGV[4], ARGV[5] == '1', ARGV[6] == '1', ARGV[7]
local leaving, fields = tonumber(ARGV[8]), tonumber(ARGV[9])

local last = redis.call('XREVRANGE', stream, '+', '-', 'COUNT', 1)
if not last[1] or last[1][1] ~= ARGV[1] then
  return 0
end

redis.call('DEL', hash)
for i = 10, 9 + 2 * fields, 2 do
  redis.call('HSET', hash, ARGV[i], ARGV[i + 1])
end
redis.call('DEL', index)
for i = 10 + 2 * fields, #ARGV do
  redis.call('RPUSH', index, ARGV[i])
end
redis.call('ZADD', ids, 0, ARGV[2])
for i = 10, #KEYS do
  if i < 10 + leaving then
    redis.call('ZREM', KEYS[i], ARGV[3])
  else
    redis.call('ZADD', KEYS[i], 0, ARGV[3])
  end
end

local new_ticket
if is_queued then
  local ticket = redis.call('HGET', tickets, user)
  if ticket and #redis.call('XRANGE', dispatch, ticket, ticket) == 0 then
    redis.call('HDEL', tickets, user)
  end
  new_ticket = enter_queue(dispatch, backlog, tickets, user, ARGV[3])
else
  leave_queue(dispatch, backlog, tickets, user, ARGV[3])
end
if is_claimed then
  local lease_ms = REBUILT_LEASE_MS
  redis.call('ZADD', leases, 'NX', advance_clock(clock, lease_ms) + lease_ms, ARGV[2])
else
  redis.call('ZREM', leases, ARGV[2])
end
if new_ticket then
  tell(channel, new_ticket)
end
return 1
