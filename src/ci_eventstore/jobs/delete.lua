-- Delete a job that has ended, and leave a tombstone: one atomic step.
--
-- `delete.py` names its keys and arguments.
--
-- Returns "deleted", or "gone" if it was deleted before, whatever is left of it; or changes nothing and returns "missing",
-- "unprojected", or "changed" (it was written to, sealed or created anew since it was read).

-- Libraries: standing, sealed

-- Check.
local state = redis.pcall('HMGET', hash, 'version', 'incarnation', 'log', 'claim', 'position', 'part')
local was_deleted = redis.pcall('HEXISTS', gone, id)
local error = failed(state, hash) or failed(was_deleted, gone)
if error then
  return error
elseif was_deleted == 0 and not state[1] then
  -- Libraries: existence
  return standing_of(state[1], stream)
end
state[5], state[6] = end_of_log(state[5], state[6], state[3])
if was_deleted == 0 and (state[1] ~= version or (state[2] or '') ~= incarnation or (state[3] or '') ~= log or state[4]
    or state[5] ~= position or state[6] ~= part) then
  return 'changed'
end
error = unreadable('ZCARD', ids, ended_jobs, unsealed, unpack(KEYS, listings.places())) or unreadable('HLEN', unsealable)
  or forbidden('HSET', gone, '', '') or forbidden('HDEL', gone, '') or forbidden('HDEL', unsealable, '')
  or forbidden('UNLINK', hash, stream, calls, log_index, ring) or forbidden('ZREM', ids, '')
  or #segments > 0 and forbidden('UNLINK', segments(1))
if error then
  return error
end
-- A server without memory refuses a script's first write if that takes some, and none after a write that takes none.
error = attempt(function()
  redis.call('HDEL', unsealable, id)
end)
if error then
  return error
end

-- Libraries: facts
local told, refused = nil, nil
if was_deleted == 0 then
  told, refused = add_facts(facts, fact, id, 'o', owner)
  error = refused or attempt(function()
    redis.call('HSET', gone, id, string.format('%s %.0f %s', letters, now_ms, tombstone))
  end)
  if error then
    take_back(facts, told or {})
    return error
  end
end

-- With the tombstone there, nothing that is left is a job any more.
error = attempt(function()
  redis.call('UNLINK', hash, stream, calls, log_index, ring)
  if #segments > 0 then
    redis.call('UNLINK', unpack(KEYS, segments.places()))
  end
  redis.call('ZREM', ids, id)
  redis.call('ZREM', unsealed, id)
  redis.call('ZREM', ended_jobs, ended)
  for i = 1, #listings do
    redis.call('ZREM', listings(i), member)
  end
end)
return error or was_deleted == 0 and 'deleted' or 'gone'
