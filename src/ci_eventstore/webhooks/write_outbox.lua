-- Write what a webhook's queue has to hold now, and what has become of the webhook: one atomic step, which may be repeated.
--
-- `outbox.py` names its keys and arguments. A message without a text goes.
--
-- Returns "ok"; or "lost" (another process sends by now), "changed" (the webhook isn't as it was read), and changes nothing.

-- Libraries: standing

local holder, found
local error = attempt(function()
  holder, found = redis.call('HGET', sender, 'holder'), redis.call('HGET', webhooks, id)
end) or unreadable('HLEN', queue) or forbidden('HSET', queue, '', '') or forbidden('HDEL', queue, '') or forbidden('HSET', webhooks, id, '')
if error then
  return named(error, {'hash', 'hash', 'hash'})
elseif holder ~= token then
  return 'lost'
elseif found ~= expected and found ~= record then
  return 'changed'
end

error = attempt(function()
  for i = 1, #messages do
    if messages.text(i) ~= '' then
      redis.call('HSET', queue, messages.id(i), messages.text(i))
    end
  end
  if found ~= record then
    redis.call('HSET', webhooks, id, record)
  end
  for i = 1, #messages do
    if messages.text(i) == '' then
      redis.call('HDEL', queue, messages.id(i))
    end
  end
end)
return error and named(error, {'hash', 'hash', 'hash'}) or 'ok'
