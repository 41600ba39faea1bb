-- Note the format version and partition count of a store that has none yet: one atomic step.
--
-- KEYS  1 store
-- ARGV  1 format version, 2 partition count
--
-- Returns {format version, partition count} as the store has them now.

if redis.call('EXISTS', KEYS[1]) == 0 then
  redis.call('HSET', KEYS[1], 'format', ARGV[1], 'partitions', ARGV[2])
end
return redis.call('HMGET', KEYS[1], 'format', 'partitions')
