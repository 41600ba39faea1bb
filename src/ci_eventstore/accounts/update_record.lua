-- Set one field of a record that is there: one atomic step, which does no harm if it is done twice.
--
-- KEYS  1 record
-- ARGV  1 field, 2 value
--
-- Returns 1, or 0 if there is no such record.

if redis.call('EXISTS', KEYS[1]) == 0 then
  return 0
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
return 1
