-- Set or remove one entry of an index of accounts if it is still wrong: one atomic step.
--
-- `accounts.py` names its keys and arguments.
--
-- Returns "right" (nothing had to be changed), "mended", or "changed" and changes nothing: what was read isn't true any more.

local function read(key)
  if field == '' then
    return redis.call('EXISTS', key) == 1 and '1' or ''
  end
  return redis.call('HGET', key, field) or ''
end

local belongs = has_place == 1
if read(record) ~= seen then
  return 'changed'
end
local found = redis.call('TYPE', entries)['ok']
if found ~= 'none' and found ~= kind then
  -- An index of another type is no index.
  redis.call('DEL', entries)
end

if kind == 'set' then
  local is_there = redis.call('SISMEMBER', entries, name) == 1
  if is_there == belongs then
    return 'right'
  end
  redis.call(belongs and 'SADD' or 'SREM', entries, name)
  return 'mended'
end

local holder = redis.call('HGET', entries, name) or ''
if (holder == id) == belongs then
  return 'right'
end
if not belongs then
  redis.call('HDEL', entries, name)
  return 'mended'
end
if holder ~= '' and (holder ~= holder_id or read(holder_record) ~= holder_seen) then
  return 'changed'
end
redis.call('HSET', entries, name, id)
return 'mended'
