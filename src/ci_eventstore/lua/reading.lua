-- What is read of hashes, which may hold anything.

-- Returns the values of a hash's fields; nothing if the key holds something of another type.
local function read_hash(key, ...)
  local values = redis.pcall('HMGET', key, ...)
  if values.err and not string.find(values.err, 'WRONGTYPE', 1, true) then
    error(values)
  end
  return not values.err and values or nil
end

-- Returns all fields of a hash, by their names; nothing if the key holds something of another type. To read them all takes less
-- than to name as many.
local function read_all(key)
  local found, fields = redis.pcall('HGETALL', key), {}
  if found.err and not string.find(found.err, 'WRONGTYPE', 1, true) then
    error(found)
  end
  for i = 1, #found, 2 do
    fields[found[i]] = found[i + 1]
  end
  return not found.err and fields or nil
end

-- Whether five texts are digits: the fast way to know that nothing is wrong.
local function are_digits(a, b, c, d, e)
  return string.find((a or '') .. ' ' .. (b or '') .. ' ' .. (c or '') .. ' ' .. (d or '') .. ' ' .. (e or ''),
    '^%d+ %d+ %d+ %d+ %d+$') ~= nil
end

-- Whole numbers up to 2^53 alone are what scripts write; `tonumber` reads much else.
local function whole(text)
  return text and #text <= 16 and string.find(text, '^%d+$') and tonumber(text) or nil
end
