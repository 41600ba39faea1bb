-- Remove a controller that signs off from a queue's consumer group, and those that were gone for long; none that holds tickets.
--
-- `claimer.py` names its keys and arguments.

-- Libraries: standing, tickets

local removed = 0

local function forget_offers()
  redis.call('ZREM', offers, controller)
  redis.call('HDEL', offered, controller)
  local now, records = tonumber(redis.call('HGET', clock, 'now') or 0) or 0, redis.call('HGETALL', offered)
  for i = 1, #records, 2 do
    local asked_at = tonumber(string.match(records[i + 1], '^%S+ %d+ (%d+)'))
    if not asked_at or asked_at + gone_ms < now then
      redis.call('HDEL', offered, records[i])
    end
  end
end

local function forget_controllers()
  if redis.call('EXISTS', dispatch) == 0 then
    return
  end
  last_ticket(dispatch)
  for _, consumer in ipairs(redis.call('XINFO', 'CONSUMERS', dispatch, 'controllers')) do
    local fields = {}
    for i = 1, #consumer, 2 do
      fields[consumer[i]] = consumer[i + 1]
    end
    if fields['pending'] == 0 and (fields['name'] == controller or fields['idle'] > gone_ms) then
      redis.call('XGROUP', 'DELCONSUMER', dispatch, 'controllers', fields['name'])
      redis.call('HDEL', calls, fields['name'])
      removed = removed + 1
    end
  end
end

local error = attempt(forget_offers) or attempt(forget_controllers)
return error and named(error, {'stream', 'hash', 'zset', 'hash', 'hash'}) or removed
