-- Give the store another incarnation: one atomic step.
--
-- KEYS  1 store
-- ARGV  1 the incarnation that it must have now, "-" for none; "" for whichever, 2 the new one,
--       3 for how many milliseconds it must have had the one that it has
--
-- Returns the one that the store has in the end. A repeated call changes nothing more.

local found, expected, new, age_ms = redis.call('HMGET', KEYS[1], 'incarnation', 'renewed_at'), ARGV[1], ARGV[2], tonumber(ARGV[3])
local current, renewed_at = found[1] or '-', tonumber(found[2] or 0)
if expected == '' or current == expected and now_ms - renewed_at >= age_ms then
  redis.call('HSET', KEYS[1], 'incarnation', new, 'renewed_at', string.format('%.0f', now_ms))
  return new
end
return found[1] or ''
