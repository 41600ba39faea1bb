-- Milliseconds for which this partition was served. It goes on by half of the shortest lease in use at most with each
-- script, so it stands still while the server is away, and no jump of the server's clock ends a lease, whoever comes first.
-- A field "lease:<milliseconds>" says until when leases of this length may last.
local function advance_clock(clock, lease_ms)
  local found, shortest = redis.call('HGETALL', clock), lease_ms
  local fields = {now = 0, seen = now_ms}
  for i = 1, #found, 2 do
    fields[found[i]] = tonumber(found[i + 1])
  end
  for name, last in pairs(fields) do
    local length = tonumber(string.match(name, '^lease:(%d+)$'))
    if length and last < fields.now then
      redis.call('HDEL', clock, name)
    elseif length then
      shortest = math.min(shortest, length)
    end
  end
  local now = math.floor(fields.now + math.max(0, math.min(now_ms - fields.seen, shortest / 2)))
  redis.call('HSET', clock, 'now', string.format('%.0f', now), 'seen', string.format('%.0f', now_ms),
    string.format('lease:%.0f', lease_ms), string.format('%.0f', now + lease_ms))
  return now
end
