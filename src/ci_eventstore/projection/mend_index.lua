-- Set or remove one entry of an index of accounts if it is still wrong: one atomic step.
--
-- KEYS  1 index: a set, or a hash from what is unique to ids; 2 record that the entry is about; of a hash, 3 record that the
--       entry names instead, as it was read, or the same
-- ARGV  1 "set" or "hash", 2 the entry's name, 3 the record's id, 4 the record's field that the entry is made from, "" if it
--       only needs a record, 5 that field, as it was read, 6 "1" if the entry belongs there, 7 id that the entry names
--       instead, as it was read, or "", 8 that record's field, as it was read
--
-- Returns "right" (nothing had to be changed), "mended", or "changed" and changes nothing: what was read isn't true any more.

local index, record, holder_record = KEYS[1], KEYS[2], KEYS[3]
local kind, name, id, field, seen, belongs = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6] == '1'

local function read(key)
  if field == '' then
    return redis.call('EXISTS', key) == 1 and '1' or ''
  end
  return redis.call('HGET', key, field) or ''
end

if read(record) ~= seen then
  return 'changed'
end
local found = redis.call('TYPE', index)['ok']
if found ~= 'none' and found ~= kind then
  -- An index of another type is no index.
  redis.call('DEL', index)
end

if kind == 'set' then
  local is_there = redis.call('SISMEMBER', index, name) == 1
  if is_there == belongs then
    return 'right'
  end
  redis.call(belongs and 'SADD' or 'SREM', index, name)
  return 'mended'
end

local holder = redis.call('HGET', index, name) or ''
if (holder == id) == belongs then
  return 'right'
end
if not belongs then
  redis.call('HDEL', index, name)
  return 'mended'
end
if holder ~= '' and (holder ~= ARGV[7] or read(holder_record) ~= ARGV[8]) then
  return 'changed'
end
redis.call('HSET', index, name, id)
return 'mended'
