-- Store a new record with its unique indexes: one atomic step.
--
-- KEYS  1 record, 2 set of all ids, 3 unique index (a hash), 4 the owner's record, 5 the set of the owner's ids
--       (4 and 5 are missing where records have no owner)
-- ARGV  1 call id, 2 id, 3 value that must be unique; then the record's fields, as names and values
--
-- Returns "ok", also for a repeated call; or "ownerless", "exists" (the id), "taken" (the value), and changes nothing.

-- A write that is refused is an error, and what came before it is taken back.

-- Libraries: standing

local record, ids, unique, owner, owned = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local call, id, value = ARGV[1], ARGV[2], ARGV[3]
local TYPES = {'hash', 'set', 'hash', 'hash', 'set'}

local known_call, is_owned, is_taken
local error = attempt(function()
  known_call, is_taken = redis.call('HGET', record, 'call'), redis.call('HEXISTS', unique, value) == 1
  is_owned = not owner or redis.call('EXISTS', owner) == 1
end) or forbidden('HSET', record, '', '')
if error then
  return named(error, TYPES)
elseif known_call == call then
  return 'ok'
elseif not is_owned then
  return 'ownerless'
elseif known_call then
  return 'exists'
elseif is_taken then
  return 'taken'
end

error = attempt(function()
  redis.call('SADD', ids, id)
  if owned then
    redis.call('SADD', owned, id)
  end
  redis.call('HSET', unique, value, id)
  redis.call('HSET', record, 'call', call, unpack(ARGV, 4))
end)
if error then
  redis.pcall('HDEL', unique, value)
  if owned then
    redis.pcall('SREM', owned, id)
  end
  redis.pcall('SREM', ids, id)
  return named(error, TYPES)
end
return 'ok'
