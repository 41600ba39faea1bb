-- Store a new record with its unique indexes: one atomic step.
--
-- KEYS  1 record, 2 set of all ids, 3 unique index (a hash), 4 the owner's record, 5 the set of the owner's ids
--       (4 and 5 are missing where records have no owner)
-- ARGV  1 call id, 2 id, 3 value that must be unique; then the record's fields, as names and values
--
-- Returns "ok", also for a repeated call; or "ownerless", "exists" (the id), "taken" (the value), and changes nothing.

local record, ids, unique, owner, owned = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local call, id, value = ARGV[1], ARGV[2], ARGV[3]

local known_call = redis.call('HGET', record, 'call')
if known_call == call then
  return 'ok'
end
if owner and redis.call('EXISTS', owner) == 0 then
  return 'ownerless'
end
if known_call then
  return 'exists'
end
if redis.call('HEXISTS', unique, value) == 1 then
  return 'taken'
end

redis.call('HSET', record, 'call', call, unpack(ARGV, 4))
redis.call('SADD', ids, id)
redis.call('HSET', unique, value, id)
if owned then
  redis.call('SADD', owned, id)
end
return 'ok'
