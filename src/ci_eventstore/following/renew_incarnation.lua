-- Give the store another incarnation: one atomic step.
--
-- KEYS  1 store
-- ARGV  1 the incarnation that it must have now, "-" for none; "" for whichever, 2 the new one
--
-- Returns the one that the store has in the end. A repeated call changes nothing more.

local current, expected, new = redis.call('HGET', KEYS[1], 'incarnation'), ARGV[1], ARGV[2]
if expected == '' or (current or '-') == expected then
  redis.call('HSET', KEYS[1], 'incarnation', new)
  return new
end
return current or ''
