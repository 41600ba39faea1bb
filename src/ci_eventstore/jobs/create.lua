-- Store a new job that waits in its queue and has no events. If nobody waits there already and a controller has offered to take
-- the next job, it is that controller's at once: ticket, claim and lease in this one step.
--
-- KEYS  1 hash, 2 stream, 3 ids, 4 dispatch, 5 backlog, 6 tickets, 7 leases, 8 clock, 9 offers, 10 offered,
--       11.. listings: all jobs, queued ones, running ones; then the same of the job's owner, if it has one
-- ARGV  1 payload of `created`, 2 member of the listings, 3 user, 4 channel of the queue,
--       5 token that no other call has: it is in the payload, too, and in the claim of a controller, 6 the time, as text, 7 the time, as msgpack, 8 what controllers' channels begin with,
--       then the hash's fields, as names and values
-- CONST GIVEN_KEPT
--
-- Returns "ok", also when it is repeated; or "exists" and changes nothing.

local hash, stream, ids, dispatch, backlog, tickets = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local leases, clock, offers, offered = KEYS[7], KEYS[8], KEYS[9], KEYS[10]
local created, member, user, channel, token = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local id = string.sub(member, 18)
local BEFORE_LISTINGS, LISTINGS_EACH, BEFORE_FIELDS = 10, 3, 8

if redis.call('EXISTS', hash, stream) > 0 then
  local first = redis.call('XRANGE', stream, '0-1', '0-1')[1]
  return first and first[2][2] == created and 'ok' or 'exists'
end

-- Give the job to the controller that offered last and still listens, false if there is none. No user waits.
local function give()
  local controller, record, deadline, claimed
  local ticket, claim = add_ticket(dispatch, tickets, user), '1 ' .. token

  -- The last offer of all; nothing is left over if that is too old.
  local function next_offer()
    local found, ends_at = unpack(redis.call('ZPOPMAX', offers))
    controller, record = found, found and redis.call('HGET', offered, found)
    if record then
      local lease_ms = tonumber(string.match(record, '^%S+ (%d+)'))
      local now = advance_clock(clock, lease_ms)
      deadline = now + lease_ms
      if tonumber(ends_at) <= now then
        redis.call('DEL', offers)
        controller = nil
      end
    end
  end

  local function is_heard()
    if not record then
      return false
    end
    claimed = claimed_payloads(ARGV[7], controller)(1, 1, claim, ticket)
    local head = string.match(record, '^%S+') .. '\n' .. id .. '\n' .. #created .. '\n'
    return redis.call('PUBLISH', ARGV[8] .. controller, head .. created .. claimed) > 0
  end

  repeat
    next_offer()
    if not controller then
      redis.call('HSET', tickets, user, ticket)
      redis.call('ZADD', backlog, '0', user .. '\0' .. member)
      redis.call('PUBLISH', channel, 'ticket ' .. user .. '\0' .. member)
      return false
    end
  until is_heard()

  -- Through the group. Other tickets that are handed out by this are for nobody.
  last_ticket(dispatch)
  repeat
    local entries = redis.call('XREADGROUP', 'GROUP', 'controllers', controller, 'COUNT', '100', 'STREAMS', dispatch, '>')[1][2]
    for _, entry in ipairs(entries) do
      if entry[1] ~= ticket then
        redis.call('XACK', dispatch, 'controllers', entry[1])
        redis.call('XDEL', dispatch, entry[1])
      end
    end
  until entries[#entries][1] == ticket

  redis.call('XADD', stream, '0-2', 'e', claimed)
  redis.call('HSET', hash, 'version', '2', 'part', '2', 'status', 'running', 'epoch', '1', 'attempts', '1',
    'controller', controller, 'claim', claim, 'ticket', ticket)
  redis.call('HSETNX', hash, 'start_time', ARGV[6])
  redis.call('ZADD', leases, deadline, id)
  local lines = {string.match(record, '^[^\n]+'), token .. ' ' .. id}
  for line in string.gmatch(record, '\n([^\n]+)') do
    lines[#lines + 1] = #lines <= GIVEN_KEPT and line or nil
  end
  redis.call('HSET', offered, controller, table.concat(lines, '\n'))
  return true
end

redis.call('XADD', stream, '0-1', 'e', created)
redis.call('HSET', hash, 'position', '0', 'part', '1', 'bytes', '0', 'lines', '0', unpack(ARGV, BEFORE_FIELDS + 1))
redis.call('ZADD', ids, '0', id)

local standing = 2
if redis.call('EXISTS', offers) == 0 or redis.call('HLEN', tickets) > 0 then
  enter_queue(dispatch, backlog, tickets, user, member, channel)
elseif give() then
  standing = 3
end
for first = BEFORE_LISTINGS, #KEYS - 1, LISTINGS_EACH do
  redis.call('ZADD', KEYS[first + 1], '0', member)
  redis.call('ZADD', KEYS[first + standing], '0', member)
end
return 'ok'
