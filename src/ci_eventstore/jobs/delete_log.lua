-- Delete the log of a job that has ended, and leave one entry that says so and has the job's whole state: one atomic step.
--
-- `delete.py` names its keys and arguments.
-- CONST PIECES: of a packed record
--
-- Returns "deleted"; or changes nothing and returns "gone", "missing", "unprojected", or "changed" (it was written to, sealed or created anew
-- since it was read).

-- Libraries: standing, telling, sealed

-- Check.
local state = redis.pcall('HMGET', hash, 'version', 'incarnation', 'log', 'claim', 'position', 'part')
local was_deleted = redis.pcall('HEXISTS', gone, id)
local error = failed(state, hash) or failed(was_deleted, gone)
if error then
  return error
elseif was_deleted == 1 then
  return 'gone'
elseif not state[1] then
  -- Libraries: existence
  return standing_of(state[1], stream)
end
state[5], state[6] = end_of_log(state[5], state[6], state[3])
local is_repeated = (state[5] or '') .. '-' .. (state[6] or '') == place and (not state[3] or state[3] == log)
if (state[2] or '') ~= incarnation or state[4] or not is_repeated and (state[1] ~= version or (state[3] or '') ~= log
    or state[5] ~= position or state[6] ~= part) then
  return 'changed'
end
error = unreadable('ZCARD', unsealed) or unreadable('HLEN', unsealable) or forbidden('HDEL', unsealable, '')
  or forbidden('HSET', hash, '', '') or forbidden('HDEL', hash, '') or forbidden('UNLINK', stream, log_index, ring)
  or forbidden('XADD', stream, '*', '', '') or forbidden('RPUSH', log_index, '') or forbidden('ZADD', unsealed, '0', '')
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
local told, refused = add_facts(facts, is_repeated and '' or fact, id)
if refused then
  return refused
end

-- The entry has all that the record has: from then on `rebuild` would make it of that alone.
error = attempt(function()
  redis.call('UNLINK', stream, log_index, ring)
  redis.call('XADD', stream, place, 'e', entry)
  if milestone ~= '' then
    redis.call('RPUSH', log_index, milestone)
  end
  redis.call('HSET', hash, 'mark', mark_of(entry), unpack(ARGV, fields.places()))
  redis.call('HDEL', hash, 'log', PIECES)
  if #segments > 0 then
    redis.call('UNLINK', unpack(KEYS, segments.places()))
  end
  redis.call('ZADD', unsealed, now_ms, id)
end)
return error or 'deleted'
