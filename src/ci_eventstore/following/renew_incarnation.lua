-- Give the store another incarnation: one atomic step.
--
-- `incarnation.py` names its key and arguments.
--
-- The first one stays as the field `origin`, by which an archive knows the store.
--
-- Returns the one that the store has in the end. A repeated call changes nothing more.

local found = redis.call('HMGET', store, 'incarnation', 'renewed_at', 'origin')
local current, renewed_at = found[1] or '-', tonumber(found[2] or 0)
if expected == '' or current == expected and now_ms - renewed_at >= age_ms then
  redis.call('HSET', store, 'incarnation', new, 'renewed_at', string.format('%.0f', now_ms), 'origin', found[3] or found[1] or new)
  return new
end
return found[1] or ''
