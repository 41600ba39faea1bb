-- Store a new job that waits in its queue and has no events. If nobody waits there already and a controller has offered to take
-- the next job, it is that controller's at once: ticket, claim and lease in this one step.
--
-- KEYS  1 hash, 2 stream, 3 ids, 4 dispatch, 5 backlog, 6 tickets, 7 leases, 8 clock, 9 offers, 10 offered,
--       11.. listings: all jobs, queued ones, running ones; then the same of the job's owner, if it has one
-- ARGV  1 payload of `created`, 2 sort key of the creation, 3 user, 4 channel of the queue,
--       5 token that no other call has: it is in the payload, too, and in a controller's claim, 6 the time, as text, 7 the time,
--       as msgpack, 8 what controllers' own channels begin with, 9 id; then the hash's fields, as names and values, but for those
--       that all jobs have that wait
--
-- Returns "ok", also when it is repeated; or "exists" and changes nothing. A write that is refused is an error, and what came before
-- it is taken back.

-- Libraries: telling

local hash, stream, ids, dispatch, backlog, tickets = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local created, user, channel, id = ARGV[1], ARGV[3], ARGV[4], ARGV[9]
local member, waiting = ARGV[2] .. ':' .. id, user .. '\0' .. ARGV[2] .. '\0' .. id
local BEFORE_LISTINGS, LISTINGS_EACH, QUEUED, RUNNING, BEFORE_FIELDS = 10, 3, 2, 3, 9

-- A key counts as often as it is named. An id of which there is a hash or a stream isn't missing (`lua/existence.lua`).
local found = redis.call('EXISTS', hash, stream, dispatch, dispatch, dispatch)
if found % 3 > 0 then
  local first = redis.call('XRANGE', stream, '0-1', '0-1')[1]
  return first and first[2][2] == created and 'ok' or 'exists'
end
local known_ticket, new_ticket = redis.pcall('HGET', tickets, user), nil
if known_ticket and known_ticket.err then
  -- Libraries: standing
  return failed(known_ticket, tickets)
end
local count_of_offers = 0
if not known_ticket and redis.call('HLEN', tickets) == 0 then
  count_of_offers = redis.pcall('ZCARD', KEYS[9])
  if type(count_of_offers) == 'table' then
    -- Libraries: standing
    return failed(count_of_offers, KEYS[9])
  end
end

local function wait()
  redis.call('ZADD', ids, '0', id)
  for first = BEFORE_LISTINGS, #KEYS - 1, LISTINGS_EACH do
    redis.call('ZADD', KEYS[first + 1], '0', member)
    redis.call('ZADD', KEYS[first + QUEUED], '0', member)
  end
  redis.call('ZADD', backlog, '0', waiting)
  if found == 0 or not known_ticket or not string.find(known_ticket, '^%d+%-%d+$') then
    -- Libraries: tickets
    new_ticket = add_ticket(dispatch, tickets, user)
    redis.call('HSET', tickets, user, new_ticket)
  end
  redis.call('XADD', stream, '0-1', 'e', created)
  redis.call('HSET', hash, 'position', '0', 'part', '1', 'bytes', '0', 'lines', '0', 'mark', mark_of(created), 'status', 'queued',
    'version', '1', 'epoch', '0', 'attempts', '0', 'has_complete', '0', 'end_time_from_event', '0',
    unpack(ARGV, BEFORE_FIELDS + 1))
end

local is_done, error
if count_of_offers == 0 then
  is_done, error = pcall(wait)
else
  local leases, clock, offers, offered = KEYS[7], KEYS[8], KEYS[9], KEYS[10]

  -- Libraries: standing, clock, tickets, payloads, offers

  local controller, record, lease_ms, now, given_ticket
  is_done, error = pcall(function()
    controller, record, lease_ms, now = next_offer(ARGV[8])
  end)
  if is_done and not controller then
    is_done, error = pcall(wait)
  elseif is_done then
    is_done, error = pcall(function()
      redis.call('ZADD', ids, '0', id)
      for first = BEFORE_LISTINGS, #KEYS - 1, LISTINGS_EACH do
        redis.call('ZADD', KEYS[first + 1], '0', member)
        redis.call('ZADD', KEYS[first + RUNNING], '0', member)
      end
      redis.call('ZADD', leases, now + lease_ms, id)
      given_ticket = add_ticket(dispatch, tickets, user)
      deliver(given_ticket, controller)
      -- The ticket makes it another claim, should this fail and be tried again.
      local claim = '1 ' .. ARGV[5] .. given_ticket
      local claimed = claimed_payloads(ARGV[7], controller)(1, 1, claim, given_ticket)
      -- Of two values of a field the last one counts.
      local fields = {'start_time', ARGV[6], unpack(ARGV, BEFORE_FIELDS + 1)}
      for _, text in ipairs({'part', '2', 'version', '2', 'status', 'running', 'epoch', '1', 'attempts', '1',
        'controller', controller, 'claim', claim, 'ticket', given_ticket}) do
        fields[#fields + 1] = text
      end
      redis.call('XADD', stream, '0-1', 'e', created)
      redis.call('HSET', hash, 'position', '0', 'bytes', '0', 'lines', '0', 'mark', mark_of(claimed), 'has_complete', '0',
        'end_time_from_event', '0', unpack(fields))
      redis.call('XADD', stream, '0-2', 'e', claimed)
      -- Earlier ones are known to the controller, or it would have made no offer.
      redis.call('HSET', offered, controller, string.match(record, '^[^\n]+') .. '\n' .. string.sub(claim, 3) .. ' ' .. id)
      local head = string.match(record, '^%S+') .. '\n' .. id .. '\n' .. #created .. '\n'
      tell(ARGV[8] .. string.match(record, '^%x+'), head .. created .. claimed)
    end)
    if not is_done then
      attempt(function()
        remove_ticket(dispatch, given_ticket)
        redis.call('HSET', offered, controller, record)
      end)
    end
  end
end
if is_done then
  if new_ticket then
    tell(channel, 'ticket ' .. waiting)
  end
  return 'ok'
end

-- Libraries: standing, tickets

-- Nothing is left of the job.
for _, key in ipairs({ids, KEYS[7]}) do
  redis.pcall('ZREM', key, id)
end
for i = BEFORE_LISTINGS + 1, #KEYS do
  redis.pcall('ZREM', KEYS[i], member)
end
redis.pcall('DEL', hash)
redis.pcall('DEL', stream)
attempt(function()
  redis.call('ZREM', backlog, waiting)
  if new_ticket and #jobs_of(backlog, user, 1) == 0 then
    redis.call('HDEL', tickets, user)
    remove_ticket(dispatch, new_ticket)
  end
end)
error = type(error) == 'table' and error or {err = tostring(error)}
return named(error, {'hash', 'stream', 'zset', 'stream', 'zset', 'hash', 'zset', 'hash', 'zset', 'hash'}, 'zset')
