-- Write a job's hash, sparse index and listings as its stream says: one atomic step.
--
-- KEYS  1 hash, 2 stream, 3 sparse index, 4 ids, 5.. listings: first those to leave, then those to join
-- ARGV  1 the stream's last id that was folded, 2 job id, 3 member of the listings, 4 how many listings to leave,
--       5 how many fields; then these, as names and values; then the sparse index's entries
--
-- Returns 1; or 0 and changes nothing: the stream has gone on.

local hash, stream, index, ids = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local leaving, fields = tonumber(ARGV[4]), tonumber(ARGV[5])

local last = redis.call('XREVRANGE', stream, '+', '-', 'COUNT', 1)
if not last[1] or last[1][1] ~= ARGV[1] then
  return 0
end

redis.call('DEL', hash)
for i = 6, 5 + 2 * fields, 2 do
  redis.call('HSET', hash, ARGV[i], ARGV[i + 1])
end
redis.call('DEL', index)
for i = 6 + 2 * fields, #ARGV do
  redis.call('RPUSH', index, ARGV[i])
end
redis.call('ZADD', ids, 0, ARGV[2])
for i = 5, #KEYS do
  if i < 5 + leaving then
    redis.call('ZREM', KEYS[i], ARGV[3])
  else
    redis.call('ZADD', KEYS[i], 0, ARGV[3])
  end
end
return 1
