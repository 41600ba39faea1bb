-- Note the format version and partition count of a store that has none yet, and give one that has no incarnation its first: one
-- atomic step.
--
-- KEYS  1 store
-- ARGV  1 format version, 2 partition count, 3 incarnation
--
-- Returns {format version, partition count, incarnation} as the store has them now.

if redis.call('EXISTS', KEYS[1]) == 0 then
  redis.call('HSET', KEYS[1], 'format', ARGV[1], 'partitions', ARGV[2])
end
if redis.call('HGET', KEYS[1], 'format') == ARGV[1] then
  redis.call('HSETNX', KEYS[1], 'incarnation', ARGV[3])
end
return redis.call('HMGET', KEYS[1], 'format', 'partitions', 'incarnation')
