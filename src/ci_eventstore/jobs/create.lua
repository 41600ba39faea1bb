-- Store a new job that waits in its queue and has no events. If nobody waits there already and a controller has offered to take
-- the next job, it is that controller's at once: ticket, claim and lease in this one step.
--
-- KEYS  1 hash, 2 stream, 3 ids, 4 dispatch, 5 backlog, 6 tickets, 7 leases, 8 clock, 9 offers, 10 offered,
--       11.. listings: all jobs, queued ones, running ones; then the same of the job's owner, if it has one
-- ARGV  1 payload of `created`, 2 member of the listings, 3 user, 4 channel of the queue,
--       5 token that no other call has: it is in the payload, too, and in a controller's claim, 6 the time, as text, 7 the time,
--       as msgpack, 8 what controllers' own channels begin with; then the hash's fields, as names and values
--
-- Returns "ok", also when it is repeated; or "exists" and changes nothing. A write that is refused is an error, and what came before
-- it is taken back.

-- Libraries: telling, standing, tickets

local hash, stream, ids, dispatch, backlog, tickets = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local leases, clock, offers, offered = KEYS[7], KEYS[8], KEYS[9], KEYS[10]
local created, member, user, channel, token = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local id = string.sub(member, 18)
local BEFORE_LISTINGS, LISTINGS_EACH, QUEUED, RUNNING, BEFORE_FIELDS = 10, 3, 2, 3, 8
local TYPES = {'hash', 'stream', 'zset', 'stream', 'zset', 'hash', 'zset', 'hash', 'zset', 'hash'}

if redis.call('EXISTS', hash, stream) > 0 then
  local first = redis.call('XRANGE', stream, '0-1', '0-1')[1]
  return first and first[2][2] == created and 'ok' or 'exists'
end
local error = forbidden('HSET', hash, '', '')
if error then
  return error
end

local new_ticket
local function list(standing)
  redis.call('ZADD', ids, '0', id)
  for first = BEFORE_LISTINGS, #KEYS - 1, LISTINGS_EACH do
    redis.call('ZADD', KEYS[first + 1], '0', member)
    redis.call('ZADD', KEYS[first + standing], '0', member)
  end
end

local function save(mark, ...)
  redis.call('XADD', stream, '0-1', 'e', created)
  redis.call('HSET', hash, 'position', '0', 'part', '1', 'bytes', '0', 'lines', '0', 'mark', mark, ...)
end

-- Returns the answer; after an error, when nothing is left of the job.
local function answer_of(error)
  if not error then
    return 'ok'
  end
  for _, key in ipairs({ids, leases}) do
    redis.pcall('ZREM', key, id)
  end
  for i = BEFORE_LISTINGS + 1, #KEYS do
    redis.pcall('ZREM', KEYS[i], member)
  end
  redis.pcall('DEL', hash)
  redis.pcall('DEL', stream)
  attempt(function()
    redis.call('ZREM', backlog, user .. '\0' .. member)
    local ticket = new_ticket and ticket_of(tickets, user)
    if ticket and #jobs_of(backlog, user, 1) == 0 then
      redis.call('HDEL', tickets, user)
      remove_ticket(dispatch, ticket)
    end
  end)
  return named(error, TYPES, 'zset')
end

local function wait()
  return attempt(function()
    list(QUEUED)
    new_ticket = enter_queue(dispatch, backlog, tickets, user, member)
    save(mark_of(created), unpack(ARGV, BEFORE_FIELDS + 1))
  end)
end

local is_offered
error = attempt(function()
  is_offered = redis.call('HLEN', tickets) == 0 and redis.call('ZCARD', offers) > 0
end) or not is_offered and wait()
if error or not is_offered then
  if new_ticket and not error then
    tell(channel, new_ticket)
  end
  return answer_of(error)
end

-- Libraries: clock, payloads, offers

local controller, record, lease_ms, now
error = attempt(function()
  controller, record, lease_ms, now = next_offer(ARGV[8])
end)
if error or not controller then
  error = error or wait()
  if not error then
    tell(channel, new_ticket)
  end
  return answer_of(error)
end

local ticket, claimed
error = attempt(function()
  list(RUNNING)
  redis.call('ZADD', leases, now + lease_ms, id)
  ticket = add_ticket(dispatch, tickets, user)
  deliver(ticket, controller)
  -- The ticket makes it another claim, should this fail and be tried again.
  local claim = '1 ' .. token .. ticket
  claimed = claimed_payloads(ARGV[7], controller)(1, 1, claim, ticket)
  -- Of two values of a field the last one counts.
  local fields = {'start_time', ARGV[6], unpack(ARGV, BEFORE_FIELDS + 1)}
  for _, text in ipairs({'part', '2', 'version', '2', 'status', 'running', 'epoch', '1', 'attempts', '1',
    'controller', controller, 'claim', claim, 'ticket', ticket}) do
    fields[#fields + 1] = text
  end
  save(mark_of(claimed), unpack(fields))
  redis.call('XADD', stream, '0-2', 'e', claimed)
  -- Earlier ones are known to the controller, or it would have made no offer.
  redis.call('HSET', offered, controller, string.match(record, '^[^\n]+') .. '\n' .. string.sub(claim, 3) .. ' ' .. id)
end)
if error then
  attempt(function()
    remove_ticket(dispatch, ticket)
    redis.call('HSET', offered, controller, record)
  end)
else
  local head = string.match(record, '^%S+') .. '\n' .. id .. '\n' .. #created .. '\n'
  tell(ARGV[8] .. string.match(record, '^%x+'), head .. created .. claimed)
end
return answer_of(error)
