-- What a script looks at before its first write, so that nothing stops it between that and its last one.
--
-- A key that holds something of another type than it has to, or a field that can't be read, is answered by an error that
-- begins with DAMAGED and names it; a missing right by one that begins with NOPERM. Then nothing was changed.

local function damaged(key, what)
  return redis.error_reply('DAMAGED ' .. key .. ': ' .. what)
end

-- Returns the error if the reply to a read or a write of `pcall` is one.
local function failed(reply, key)
  local error = type(reply) == 'table' and reply.err
  if error and string.find(error, 'WRONGTYPE', 1, true) then
    return damaged(key, 'it holds something of another type')
  end
  return error and reply or nil
end

-- Returns the error for the first of some keys that a command can't read; the command takes nothing but a key.
local function unreadable(command, ...)
  for _, key in ipairs({...}) do
    local error = failed(redis.pcall(command, key), key)
    if error then
      return error
    end
  end
  return nil
end

-- Returns the error if the script's user may not run this command. `fakeredis` doesn't know who may do what.
local function forbidden(command, ...)
  if redis.acl_check_cmd and not redis.acl_check_cmd(command, ...) then
    local words = table.concat({string.lower(command), ...}, ' ')
    return redis.error_reply("NOPERM this user has no permissions to run '" .. words .. "'")
  end
  return nil
end

-- Run writes that were checked, up to the one that is refused all the same. Returns its error.
local function attempt(writes)
  local is_done, error = pcall(writes)
  if is_done then
    return nil
  end
  return type(error) == 'table' and error or {err = tostring(error)}
end

-- Returns an error so that it names the key of another type, if that is what it is about: `types` are those of the first keys,
-- `others` is that of all others.
local function named(error, types, others)
  for i, key in ipairs(string.find(error.err, 'WRONGTYPE', 1, true) and KEYS or {}) do
    local found = redis.call('TYPE', key)
    found = type(found) == 'table' and found.ok or found
    if found ~= 'none' and found ~= (types[i] or others) then
      return failed(error, key)
    end
  end
  return error
end
