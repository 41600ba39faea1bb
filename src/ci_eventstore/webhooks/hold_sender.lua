-- Be the process that sends webhooks, for a while that begins anew, unless another one is; or be it no more.
--
-- `outbox.py` names its key and arguments. `lease_ms` is 0 if the process sends no more.
--
-- Returns {1, or 0 if another process is; the server's time; how often owners have changed their webhooks}.

-- Libraries: standing

local is_mine, changes
local error = attempt(function()
  local found = redis.call('HMGET', sender, 'holder', 'until', 'changes')
  local left = (tonumber(found[2] or '0') or 0) - now_ms
  -- A lease that lasts longer than any is of a clock that was ahead.
  is_mine, changes = found[1] == token or not found[1] or left <= 0 or left > LONGEST_LEASE_MS, found[3] or '0'
  if is_mine and lease_ms > 0 then
    redis.call('HSET', sender, 'holder', token, 'until', string.format('%.0f', now_ms + lease_ms))
  elseif found[1] == token then
    redis.call('HDEL', sender, 'holder', 'until')
  end
end)
return error and named(error, {'hash'}) or {is_mine and 1 or 0, string.format('%.0f', now_ms), changes}
