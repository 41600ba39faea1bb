-- Have the record of an ended job refer to the segments that its log lies in by now, and drop the stream: one atomic step.
--
-- `seal.py` names its keys and arguments.
-- CONST KEPT_FIELDS: what a packed record keeps
--
-- Returns "sealed", or "repeated"; or changes nothing and returns "missing", "unprojected", "running", "changed" (the job, its stream or where
-- its log lies isn't what was read), or "unstaged" (a segment isn't there any more, or isn't whole).

-- Libraries: standing

-- Check.
local state = redis.pcall('HMGET', hash, 'version', 'position', 'part', 'mark', 'end_position', 'claim', 'log', 'incarnation', 'bytes')
local last = redis.pcall('XREVRANGE', stream, '+', '-', 'COUNT', 1)
local error = failed(state, hash) or failed(last, stream) or unreadable('ZCARD', unsealed)
if error then
  return error
elseif not state[1] then
  -- Libraries: existence
  return standing_of(state[1], stream)
elseif state[7] == log and not last[1] then
  return 'repeated'
elseif not state[5] and not state[7] or state[6] then
  return 'running'
elseif (state[2] or '') .. '-' .. (state[3] or '') ~= place or not last[1] or last[1][1] ~= place or (state[4] or '') ~= mark
  or (state[7] or '') ~= log_before or (state[8] or '') ~= incarnation then
  return 'changed'
end
for i = 1, #segments do
  local size = redis.pcall('STRLEN', segments.key(i))
  error = failed(size, segments.key(i)) or forbidden('PERSIST', segments.key(i))
  if error then
    return error
  elseif size ~= segments.size(i) + 0 then
    return 'unstaged'
  end
end
error = forbidden('HSET', hash, '', '') or forbidden('DEL', hash) or forbidden('UNLINK', stream, log_index)
  or forbidden('ZREM', unsealed, '') or #dropped > 0 and forbidden('UNLINK', dropped(1))
if error then
  return error
end

-- Libraries: facts
local told, refused = add_facts(facts, fact, id)
if refused then
  return refused
end

-- The segments stay, and the record refers to them; what they replace goes last.
error = attempt(function()
  for i = 1, #segments do
    redis.call('PERSIST', segments.key(i))
  end
  redis.call('HSET', hash, 'log', log)
end)
if error then
  take_back(facts, told)
  return error
end
if is_packed == '1' then
  -- `log` says where it ends; there the job has ended, too, unless the record says something else.
  local values, kept = redis.call('HMGET', hash, KEPT_FIELDS), {}
  local said = {position = state[2], part = state[3], end_position = state[2], end_bytes = state[9]}
  for i, name in ipairs({KEPT_FIELDS}) do
    if values[i] and values[i] ~= said[name] then
      kept[#kept + 1], kept[#kept + 2] = name, values[i]
    end
  end
  redis.call('DEL', hash)
  redis.call('HSET', hash, unpack(kept))
end
redis.call('UNLINK', stream, log_index)
redis.call('ZREM', unsealed, id)
if #dropped > 0 then
  redis.call('UNLINK', unpack(KEYS, dropped.places()))
end
return 'sealed'
