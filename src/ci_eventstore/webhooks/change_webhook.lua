-- Add, change or delete a webhook for its owner, if it is still as it was read: one atomic step, which may be repeated.
--
-- `store.py` names its keys and arguments. `expected` is "" if there is none yet, `record` is "" if it is to go, with its queue.
--
-- Returns "ok"; or "changed", "full" (too many webhooks), "erasing" (its owner is being erased), and changes nothing.

-- Libraries: standing

local found, count, is_erasing, changes
local error = attempt(function()
  found, count = redis.call('HGET', webhooks, id) or '', redis.call('HLEN', webhooks)
  is_erasing = redis.call('HEXISTS', owner, 'erasing') == 1
  changes = redis.call('HGET', sender, 'changes') or '0'
  if found ~= record and (found ~= expected or found == '' and changes ~= known) then
    found = nil
  end
end) or unreadable('HLEN', queue) or forbidden('HSET', webhooks, id, '') or forbidden('HSET', sender, 'changes', '') or forbidden('DEL', queue)
if error then
  return named(error, {'hash', 'hash', 'hash', 'hash'})
elseif not found then
  return 'changed'
elseif found == record then
  return 'ok'
elseif found == '' and is_erasing then
  return 'erasing'
elseif found == '' and count >= limit then
  return 'full'
end

-- The sender looks again in any case, and nobody has a queue without its webhook.
error = attempt(function()
  redis.call('HSET', sender, 'changes', string.format('%.0f', changes + 1))
  if record ~= '' then
    redis.call('HSET', webhooks, id, record)
  else
    redis.call('DEL', queue)
    redis.call('HDEL', webhooks, id)
  end
end)
return error and named(error, {'hash', 'hash', 'hash', 'hash'}) or 'ok'
