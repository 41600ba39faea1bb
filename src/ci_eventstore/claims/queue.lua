-- Functions on a queue in one partition:
--
--   backlog   sorted set of all jobs that wait, "<user>\0<member of the listings>": each user's in the order of creation
--   tickets   hash: for each user with waiting jobs, the one ticket that no controller has taken yet
--   dispatch  stream of tickets with a consumer group; a ticket stays pending with its controller while the job is claimed
--   offers    sorted set of controllers that have nothing to do and take the next job, by when the offer ends on the clock
--   offered   hash: what each controller asked last, "<session>-<number> <milliseconds of a lease> <when, on the clock>", then, on
--             a line of its own, the last job that its offers have brought, "<token of the claim> <job id>"

local function add_ticket(dispatch, tickets, user)
  local is_new = redis.call('EXISTS', dispatch) == 0
  local ticket = redis.call('XADD', dispatch, '*', 'user', user)
  if is_new then
    redis.call('XGROUP', 'CREATE', dispatch, 'controllers', '0')
    -- Tickets that were lost with the stream count for nothing.
    redis.call('DEL', tickets)
  end
  return ticket
end

local function jobs_of(backlog, user, count)
  return redis.call('ZRANGEBYLEX', backlog, '[' .. user .. '\0', '(' .. user .. '\1', 'LIMIT', 0, count)
end

local function enter_queue(dispatch, backlog, tickets, user, member, channel)
  redis.call('ZADD', backlog, 0, user .. '\0' .. member)
  if redis.call('HEXISTS', tickets, user) == 0 or redis.call('EXISTS', dispatch) == 0 then
    redis.call('HSET', tickets, user, add_ticket(dispatch, tickets, user))
    redis.call('PUBLISH', channel, 'ticket ' .. user .. '\0' .. member)
  end
end

local function leave_queue(dispatch, backlog, tickets, user, member)
  redis.call('ZREM', backlog, user .. '\0' .. member)
  local ticket = redis.call('HGET', tickets, user)
  if ticket and #jobs_of(backlog, user, 1) == 0 then
    redis.call('HDEL', tickets, user)
    redis.call('XDEL', dispatch, ticket)
  end
end

local function drop_lease(dispatch, leases, job_id, ticket)
  redis.call('ZREM', leases, job_id)
  if ticket ~= '' and redis.call('EXISTS', dispatch) == 1 then
    redis.pcall('XACK', dispatch, 'controllers', ticket)
    redis.call('XDEL', dispatch, ticket)
  end
end

-- The id of the ticket that was handed out last. The group is made again if it is gone, from the beginning.
local function last_ticket(dispatch)
  if redis.call('EXISTS', dispatch) == 0 then
    return nil
  end
  for _, group in ipairs(redis.call('XINFO', 'GROUPS', dispatch)) do
    local fields = {}
    for i = 1, #group, 2 do
      fields[group[i]] = group[i + 1]
    end
    if fields['name'] == 'controllers' then
      return fields['last-delivered-id']
    end
  end
  redis.call('XGROUP', 'CREATE', dispatch, 'controllers', '0')
  return '0-0'
end

-- As msgpack: a text, a number below 2^32. `struct.pack` would do it, but `fakeredis` doesn't know that.
local function pack_text(text)
  return string.char(218, math.floor(#text / 256), #text % 256) .. text
end

local function pack_number(number)
  local high, low = math.floor(number / 65536), number % 65536
  return string.char(206, math.floor(high / 256), high % 256, math.floor(low / 256), low % 256)
end

-- Returns a function that returns the payload of a controller's `claimed` fact, for jobs that it is given at one time.
local function claimed_payloads(packed_time, controller)
  local before_epoch = '\148\1\167claimed' .. packed_time .. '\133' .. pack_text('epoch')
  local before_attempts = pack_text('attempts')
  local before_claim = pack_text('controller') .. pack_text(controller) .. pack_text('claim')
  local before_ticket = pack_text('ticket')
  return function(epoch, attempts, claim, ticket)
    return before_epoch .. pack_number(epoch) .. before_attempts .. pack_number(attempts) .. before_claim .. pack_text(claim) ..
      before_ticket .. pack_text(ticket)
  end
end

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
