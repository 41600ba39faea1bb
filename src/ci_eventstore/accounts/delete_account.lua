-- Delete a user's record, API keys and places in indexes: one atomic step, which may be repeated.
--
-- `erasure.py` names its keys and arguments.
--
-- Returns "deleted", also if there was nothing; or "changed" (the user has another email, or other keys, than were read), and changes
-- nothing.

-- Libraries: standing

local there, mine = redis.pcall('HGET', record, 'email'), redis.pcall('SMEMBERS', owned)
local error = failed(there, record) or failed(mine, owned) or unreadable('HLEN', emails, hashes)
  or failed(redis.pcall('SISMEMBER', users, id), users) or failed(redis.pcall('SISMEMBER', api_keys, id), api_keys)
  or forbidden('DEL', record, owned) or forbidden('SREM', users, '') or forbidden('SREM', api_keys, '')
  or forbidden('HDEL', emails, '') or forbidden('HDEL', hashes, '')
if error then
  return error
end
local given = {}
for i = 1, #keys do
  given[keys.id(i)] = true
end
if (there or '') ~= email then
  return 'changed'
end
for _, key_id in ipairs(mine) do
  if not given[key_id] then
    return 'changed'
  end
end

-- The records last: whoever repeats this finds by them what else there is.
error = attempt(function()
  for i = 1, #keys do
    redis.call('HDEL', hashes, keys.hash(i))
    redis.call('SREM', api_keys, keys.id(i))
    redis.call('DEL', keys.record(i))
  end
  redis.call('DEL', owned)
  if folded ~= '' and redis.call('HGET', emails, folded) == id then
    redis.call('HDEL', emails, folded)
  end
  redis.call('SREM', users, id)
  redis.call('DEL', record)
end)
return error or 'deleted'
