-- Set one field of a record that is there: one atomic step, which does no harm if it is done twice.
--
-- `store.py` names its key and arguments.
--
-- Returns 1, or 0 if there is no such record.

if redis.call('EXISTS', record) == 0 then
  return 0
end
redis.call('HSET', record, field, value)
return 1
