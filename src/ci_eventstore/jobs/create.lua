-- Store a new job that waits in its queue and has no events. If nobody waits there already and a controller has offered to take
-- the next job, it is that controller's at once: ticket, claim and lease in this one step.
--
-- KEYS  1 hash, 2 stream, 3 ids, 4 dispatch, 5 backlog, 6 tickets, 7 leases, 8 clock, 9 offers, 10 offered,
--       11.. listings: all jobs, queued ones, running ones; then the same of the job's owner, if it has one
-- ARGV  1 payload of `created`, 2 member of the listings, 3 user, 4 channel of the queue,
--       5 token that no other call has: it is in the payload, too, and in a controller's claim, 6 the time, as text, 7 the time,
--       as msgpack, 8 what controllers' own channels begin with; then the hash's fields, as names and values
--
-- Returns "ok", also when it is repeated; or "exists" and changes nothing.

-- Libraries: telling, standing, clock, tickets, queue, payloads

local hash, stream, ids, dispatch, backlog, tickets = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local leases, clock, offers, offered = KEYS[7], KEYS[8], KEYS[9], KEYS[10]
local created, member, user, channel, token = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local id = string.sub(member, 18)
local BEFORE_LISTINGS, LISTINGS_EACH, QUEUED, RUNNING, BEFORE_FIELDS = 10, 3, 2, 3, 8

if redis.call('EXISTS', hash, stream) > 0 then
  local first = redis.call('XRANGE', stream, '0-1', '0-1')[1]
  return first and first[2][2] == created and 'ok' or 'exists'
end

local function save(standing, mark, ...)
  redis.call('HSET', hash, 'position', '0', 'part', '1', 'bytes', '0', 'lines', '0', 'mark', mark, ...)
  redis.call('ZADD', ids, '0', id)
  for first = BEFORE_LISTINGS, #KEYS - 1, LISTINGS_EACH do
    redis.call('ZADD', KEYS[first + 1], '0', member)
    redis.call('ZADD', KEYS[first + standing], '0', member)
  end
end

redis.call('XADD', stream, '0-1', 'e', created)
if redis.call('HLEN', tickets) > 0 or redis.call('EXISTS', offers) == 0 then
  local new_ticket = enter_queue(dispatch, backlog, tickets, user, member)
  save(QUEUED, mark_of(created), unpack(ARGV, BEFORE_FIELDS + 1))
  if new_ticket then
    tell(channel, new_ticket)
  end
  return 'ok'
end

-- The last offer of all, if it isn't too old: controller, what it said, when a lease that begins now ends; else nothing. An offer
-- that has lost its record is nobody's: the controller alone is returned.
local function next_offer()
  local controller, ends_at = unpack(redis.call('ZPOPMAX', offers))
  local record = controller and redis.call('HGET', offered, controller)
  if not record then
    return controller
  end
  local lease_ms = tonumber(string.match(record, '^%S+ (%d+)'))
  local now = advance_clock(clock, lease_ms)
  if tonumber(ends_at) <= now or redis.call('ZRANGEBYSCORE', leases, '-inf', now, 'LIMIT', 0, 1)[1] then
    -- All others are older; or a lost job comes first, for which they have to ask.
    redis.call('DEL', offers)
    return nil
  end
  return controller, record, now + lease_ms
end

-- Hand a ticket to a controller through the group. Others that are handed out by this are for nobody, as no user waits.
local function deliver(ticket, controller)
  repeat
    local command = {'XREADGROUP', 'GROUP', 'controllers', controller, 'COUNT', '100', 'STREAMS', dispatch, '>'}
    local found = redis.pcall(unpack(command))
    if found and found.err then
      -- The group is gone, and is made again from the beginning.
      last_ticket(dispatch)
      found = redis.call(unpack(command))
    end
    local entries = found and found[1][2] or {{ticket}}
    for _, entry in ipairs(entries) do
      if entry[1] ~= ticket then
        redis.call('XACK', dispatch, 'controllers', entry[1])
        redis.call('XDEL', dispatch, entry[1])
      end
    end
  until entries[#entries][1] == ticket
end

-- Give the job to the controller that offered last and still listens: its hash's fields; nil if there is no such controller.
local function give(ticket)
  local claim = '1 ' .. token
  local controller, record, deadline = next_offer()
  while controller do
    if record then
      local claimed = claimed_payloads(ARGV[7], controller)(1, 1, claim, ticket)
      local head = string.match(record, '^%S+') .. '\n' .. id .. '\n' .. #created .. '\n'
      if tell(ARGV[8] .. string.match(record, '^%x+'), head .. created .. claimed) > 0 then
        deliver(ticket, controller)
        redis.call('XADD', stream, '0-2', 'e', claimed)
        redis.call('ZADD', leases, deadline, id)
        -- Earlier ones are known to the controller, or it would have made no offer.
        redis.call('HSET', offered, controller, string.match(record, '^[^\n]+') .. '\n' .. token .. ' ' .. id)
        -- Of two values of a field the last one counts.
        local fields = {'start_time', ARGV[6], unpack(ARGV, BEFORE_FIELDS + 1)}
        for _, text in ipairs({'part', '2', 'version', '2', 'status', 'running', 'epoch', '1', 'attempts', '1',
          'controller', controller, 'claim', claim, 'ticket', ticket}) do
          fields[#fields + 1] = text
        end
        return fields, mark_of(claimed)
      end
    end
    controller, record, deadline = next_offer()
  end
  return nil
end

local ticket = add_ticket(dispatch, tickets, user)
local given, mark = give(ticket)
if given then
  save(RUNNING, mark, unpack(given))
else
  redis.call('HSET', tickets, user, ticket)
  redis.call('ZADD', backlog, '0', user .. '\0' .. member)
  save(QUEUED, mark_of(created), unpack(ARGV, BEFORE_FIELDS + 1))
  tell(channel, 'ticket ' .. user .. '\0' .. member)
end
return 'ok'
