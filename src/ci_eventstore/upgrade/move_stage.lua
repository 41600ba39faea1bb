-- Move a store from one stage of an upgrade to the next, if it is in that stage: one atomic step.
--
-- `upgrade.py` names its key and arguments.
--
-- Returns {format, mark, partition count} as the store has them now; false for what it lacks.

local found = redis.call('HMGET', store, 'format', 'upgrading')
if found[1] == format and (found[2] or '') == mark then
  redis.call('HSET', store, 'format', next_format, 'upgrading', next_mark)
  if next_mark == '' then
    redis.call('HDEL', store, 'upgrading')
  end
end
return redis.call('HMGET', store, 'format', 'upgrading', 'partitions')
