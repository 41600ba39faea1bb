-- The sparse index of a log: "position lines bytes time", a new entry each INDEX_EVENTS events or INDEX_BYTES bytes.

-- Returns the position and the bytes of the newest entry, zeros if there is none that can be read; and the error.
local function newest_indexed(index)
  local newest = redis.pcall('LINDEX', index, -1)
  local error = failed(newest, index)
  local position, bytes = string.match(not error and newest or '', '^(%d+) %d+ (%d+) %-?%d+$')
  return tonumber(position or 0), tonumber(bytes or 0), error
end

-- Returns the number in four bytes of a payload.
local function number_at(payload, place)
  local a, b, c, d = string.byte(payload, place, place + 3)
  return d and ((a * 256 + b) * 256 + c) * 256 + d or 0
end

-- Returns an event's time in milliseconds since 1970, 0 if it has no zone and so is a text. The payload is an array in msgpack: a
-- version, a short text, then the time in one of msgpack's three forms.
local function time_of(payload)
  local place = (string.byte(payload, 3) or 0) - 156
  local form, seconds, nanoseconds = string.byte(payload, place), 0, 0
  if form == 214 then
    seconds = number_at(payload, place + 2)
  elseif form == 215 then
    local high = number_at(payload, place + 2)
    nanoseconds, seconds = math.floor(high / 4), high % 4 * 4294967296 + number_at(payload, place + 6)
  elseif form == 199 then
    local high = number_at(payload, place + 7)
    nanoseconds = number_at(payload, place + 3)
    seconds = (high < 2147483648 and high or high - 4294967296) * 4294967296 + number_at(payload, place + 11)
  end
  return seconds * 1000 + math.floor(nanoseconds / 1000000)
end

local function index_entry_of(position, lines, bytes, payload)
  return string.format('%d %d %d %.0f', position, lines, bytes, time_of(payload))
end
