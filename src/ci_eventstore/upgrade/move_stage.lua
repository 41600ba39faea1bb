-- Move a store from one stage of an upgrade to the next, if it is in that stage: one atomic step.
--
-- KEYS  1 store
-- ARGV  1 format and 2 mark of the stage it has to be in, 3 format and 4 mark of the next; "" for no mark
--
-- Returns {format, mark, partition count} as the store has them now; false for what it lacks.

local store = KEYS[1]
local format, mark = redis.call('HGET', store, 'format'), redis.call('HGET', store, 'upgrading') or ''
if format == ARGV[1] and mark == ARGV[2] then
  redis.call('HSET', store, 'format', ARGV[3], 'upgrading', ARGV[4])
  if ARGV[4] == '' then
    redis.call('HDEL', store, 'upgrading')
  end
end
return redis.call('HMGET', store, 'format', 'upgrading', 'partitions')
