-- Milliseconds for which this partition was served. It goes on by half of the shortest lease in use at most with each
-- script, so it stands still while the server is away, and no jump of the server's clock ends a lease, whoever comes first.
-- A field "lease:<milliseconds>" says until when leases of this length may last. Fields that can't be read are left out: then these
-- say where the clock was.
local function advance_clock(clock, lease_ms)
  local found, shortest, latest, lasts, fields = redis.call('HGETALL', clock), lease_ms, 0, {}, {}
  for i = 1, #found, 2 do
    local length, value = tonumber(string.match(found[i], '^lease:(%d+)$')), whole(found[i + 1])
    if length then
      lasts[length], latest = value, math.max(latest, (value or 0) - length)
    else
      fields[found[i]] = value
    end
  end
  local now = fields.now or latest
  for length, last in pairs(lasts) do
    if last < now then
      redis.call('HDEL', clock, string.format('lease:%d', length))
    else
      shortest = math.min(shortest, length)
    end
  end
  now = math.floor(now + math.max(0, math.min(now_ms - (fields.seen or now_ms), shortest / 2)))
  redis.call('HSET', clock, 'now', string.format('%d', now), 'seen', string.format('%d', now_ms),
    string.format('lease:%d', lease_ms), string.format('%d', now + lease_ms))
  return now
end
