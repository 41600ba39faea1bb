-- Have the record of a sealed job refer to the same segments where they lie by now, and drop the keys that they lay in: one
-- atomic step, to the archive and back.
--
-- `archiving.py` names its keys and arguments.
--
-- Returns "moved", or "repeated"; or changes nothing and returns "missing", "changed" (it is another job of that id, its record refers
-- to others, or its log went on), or "unstaged" (a segment isn't there any more, or isn't whole).

-- Libraries: standing, sealed

-- Check.
local state = redis.pcall('HMGET', hash, 'version', 'log', 'incarnation', 'has_complete', 'r0', 'position', 'part')
local error = failed(state, hash)
if error then
  return error
elseif not state[1] then
  return 'missing'
elseif (state[3] or '') ~= incarnation or state[2] ~= log and state[2] ~= log_before then
  return 'changed'
elseif state[2] == log then
  for i = 1, #dropped do
    redis.call('UNLINK', dropped(i))
  end
  return 'repeated'
end
local position, part = end_of_log(state[6], state[7], state[2])
if (position or '') .. '-' .. (part or '') ~= place then
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
error = forbidden('HSET', hash, '', '') or forbidden('PERSIST', hash) or #dropped > 0 and forbidden('UNLINK', dropped(1))
if error then
  return error
end

-- A server without memory refuses a script's first write if that takes some, and none after a write that takes none.
error = attempt(function()
  redis.call('PERSIST', hash)
  for i = 1, #segments do
    redis.call('PERSIST', segments.key(i))
  end
  -- A packed record gets what it lacks, which was said when it was sealed. Pieces that it has stay, also those of earlier versions.
  if not state[4] and not state[5] and #fields > 0 then
    redis.call('HSET', hash, 'log', log, unpack(ARGV, fields.places()))
  else
    redis.call('HSET', hash, 'log', log)
  end
  if #dropped > 0 then
    redis.call('UNLINK', unpack(KEYS, dropped.places()))
  end
end)
return error or 'moved'
