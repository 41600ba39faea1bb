-- The sparse index of a log: "position lines bytes", a new entry each INDEX_EVENTS events or INDEX_BYTES bytes.

-- Returns the position and the bytes of the newest entry, zeros if there is none that can be read; and the error.
local function newest_indexed(index)
  local newest = redis.pcall('LINDEX', index, -1)
  local error = failed(newest, index)
  local position, bytes = string.match(not error and newest or '', '^(%d+) %d+ (%d+)$')
  return tonumber(position or 0), tonumber(bytes or 0), error
end
