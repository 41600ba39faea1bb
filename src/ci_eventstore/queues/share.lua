-- Count a controller among those that share the partitions of a queue, for some time, and say how many they are.
--
-- `watch.py` names the key, which is in one partition, and the arguments.
-- CONST SHARING_TTL_MS
--
-- Returns the number. One that gives no sign of life is left out after its time.

-- Libraries: standing

local count
local error = attempt(function()
  local gone = redis.call('ZRANGEBYSCORE', sharing, '-inf', now_ms, 'LIMIT', 0, 1000)
  if gone[1] then
    redis.call('ZREM', sharing, unpack(gone))
  end
  if share_ms > 0 then
    redis.call('ZADD', sharing, string.format('%.0f', now_ms + share_ms), session)
    redis.call('PEXPIRE', sharing, SHARING_TTL_MS)
  else
    redis.call('ZREM', sharing, session)
  end
  count = redis.call('ZCARD', sharing)
end)
return error and named(error, {'zset'}) or count
