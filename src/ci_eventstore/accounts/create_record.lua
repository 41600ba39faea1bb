-- Store a new record with its unique indexes: one atomic step.
--
-- `store.py` names its keys and arguments.
--
-- Returns "ok", also for a repeated call; or "ownerless", "exists" (the id), "taken" (the value), and changes nothing.

-- A write that is refused is an error, and what came before it is taken back.

-- Libraries: standing

local TYPES = {'hash', 'set', 'hash', 'hash', 'set'}

local known_call, is_owned, is_taken
local error = attempt(function()
  known_call, is_taken = redis.call('HGET', record, 'call'), redis.call('HEXISTS', unique, value) == 1
  is_owned = #owners == 0 or redis.call('EXISTS', owners.record(1)) == 1 and redis.call('HEXISTS', owners.record(1), 'erasing') == 0
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
  for i = 1, #owners do
    redis.call('SADD', owners.ids(i), id)
  end
  redis.call('HSET', unique, value, id)
  redis.call('HSET', record, 'call', call, unpack(ARGV, fields.places()))
end)
if error then
  redis.pcall('HDEL', unique, value)
  for i = 1, #owners do
    redis.pcall('SREM', owners.ids(i), id)
  end
  redis.pcall('SREM', ids, id)
  return named(error, TYPES)
end
return 'ok'
