-- Note the format version and partition count of a store that has none yet, and give one that has no incarnation its first: one
-- atomic step.
--
-- `store_format.py` names its key and arguments.
--
-- Returns {format version, partition count, incarnation} as the store has them now.

if redis.call('EXISTS', store) == 0 then
  redis.call('HSET', store, 'format', format, 'partitions', partitions)
end
if redis.call('HGET', store, 'format') == format then
  redis.call('HSETNX', store, 'incarnation', incarnation)
end
return redis.call('HMGET', store, 'format', 'partitions', 'incarnation')
