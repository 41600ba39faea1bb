-- Set one field of a record that is there: one atomic step, which does no harm if it is done twice.
--
-- `store.py` names its key and arguments.
--
-- Returns 1, or 0 if there is no such record, or it is about to be erased.

if redis.call('EXISTS', record) == 0 or field ~= 'erasing' and redis.call('HEXISTS', record, 'erasing') == 1 then
  return 0
end
redis.call('HSET', record, field, value)
return 1
