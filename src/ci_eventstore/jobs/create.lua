-- Store a new job that waits in its queue and has no events. If nobody waits there already and a controller has offered to take
-- the next job, it is that controller's at once: ticket, claim and lease in this one step.
--
-- `create.py` names its keys and arguments.
-- CONST WAITING_FIELDS, GIVEN_FIELDS: what the fold says of either; `fields` has what is this job's own
--
-- Returns "ok", also when it is repeated; or "exists" or "gone" and changes nothing. A write that is refused is an error, and what came before
-- it is taken back.

-- Recall. Keys count as often as they are named. An id of which there is a hash or a stream isn't missing (`lua/existence.lua`).
local found = redis.call('EXISTS', hash, stream, facts, gone, dispatch, dispatch, dispatch, dispatch, dispatch)
local own = found % 5 > 0 and redis.call('EXISTS', hash, stream, facts, facts, facts) or 0
local has_readers, was_deleted = own > 2, found % 5 > 0 and redis.pcall('HEXISTS', gone, id) or 0
if own % 3 > 0 then
  local first = redis.call('XRANGE', stream, '0-1', '0-1')[1]
  -- That of a sealed job is in a segment; its token is that of the incarnation.
  local is_same = first and first[2][2] == created or not first and redis.pcall('HGET', hash, 'incarnation') == token
  return is_same and 'ok' or 'exists'
end

-- Check: whether others wait, and if not, whether there are offers.
local known_ticket, new_ticket, taker, told = redis.pcall('HGET', tickets, user), nil, nil, {}
local offers_made = not known_ticket and redis.call('HLEN', tickets) == 0 and redis.pcall('ZCARD', offers) or 0
if known_ticket and known_ticket.err or type(offers_made) == 'table' or was_deleted ~= 0 then
  -- Libraries: standing
  return failed(known_ticket, tickets) or failed(offers_made, offers) or failed(was_deleted, gone) or 'gone'
end
local is_done, error = true, nil
if offers_made > 0 then
  -- Libraries: standing, reading, clock, tickets, offers
  is_done, error = pcall(function()
    taker = next_offer(channels)
  end)
end

if is_done and has_readers then
  -- Libraries: facts
  error = tell_creation(facts, id, taker, told)
  is_done = not error
end

-- Libraries: telling

-- Append, project, queue.
local function write()
  redis.call('ZADD', ids, '0', id)
  for i = 1, #listings do
    redis.call('ZADD', taker and listings.running(i) or listings.queued(i), '0', member)
  end
  if taker then
    return
  end
  redis.call('ZADD', backlog, '0', waiting)
  if found < 5 or not known_ticket or not string.find(known_ticket, '^%d+%-%d+$') then
    -- Libraries: tickets
    new_ticket = add_ticket(dispatch, tickets, user)
    redis.call('HSET', tickets, user, new_ticket)
  end
  redis.call('XADD', stream, '0-1', 'e', created)
  redis.call('HSET', hash, 'position', '0', 'part', '1', 'bytes', '0', 'lines', '0', 'mark', mark_of(created), WAITING_FIELDS,
    unpack(ARGV, fields.places()))
end

if is_done then
  is_done, error = pcall(write)
end
if is_done and taker then
  -- Libraries: tickets, payloads, offers
  is_done, error = pcall(function()
    local controller = taker.controller
    redis.call('ZADD', leases, taker.now + taker.lease_ms, id)
    new_ticket = add_ticket(dispatch, tickets, user)
    deliver(new_ticket, controller)
    -- The ticket makes it another claim, should this fail and be tried again.
    local given_token = token .. new_ticket
    local claim = '1 ' .. given_token
    local claimed = claimed_payloads(packed_time, controller)(1, 1, claim, new_ticket)
    redis.call('XADD', stream, '0-1', 'e', created)
    redis.call('HSET', hash, 'position', '0', 'part', '2', 'bytes', '0', 'lines', '0', 'mark', mark_of(claimed), GIVEN_FIELDS,
      unpack(ARGV, fields.places()))
    redis.call('XADD', stream, '0-2', 'e', claimed)
    note_given(taker, given_token, id)
    tell(taker.channel, string.format('%s\n%s\n%s\n%s\n', taker.question, id, claim, new_ticket) .. created)
  end)
end
if is_done then
  if not taker and new_ticket then
    tell(channel, 'ticket ' .. waiting)
  end
  return 'ok'
end

-- Nothing is left of the job.
-- Libraries: standing, tickets, facts
take_back(facts, told)
for _, key in ipairs({ids, leases}) do
  redis.pcall('ZREM', key, id)
end
for i = 1, #listings do
  for _, key in ipairs({listings.queued(i), listings.running(i)}) do
    redis.pcall('ZREM', key, member)
  end
end
redis.pcall('DEL', hash)
redis.pcall('DEL', stream)
attempt(function()
  if taker then
    redis.call('HSET', offered, taker.controller, taker.record)
    remove_ticket(dispatch, new_ticket)
    return
  end
  redis.call('ZREM', backlog, waiting)
  if new_ticket and #jobs_of(backlog, user, 1) == 0 then
    redis.call('HDEL', tickets, user)
    remove_ticket(dispatch, new_ticket)
  end
end)
error = type(error) == 'table' and error or {err = tostring(error)}
return named(error, {'hash', 'stream', 'zset', 'stream', 'zset', 'hash', 'zset', 'hash', 'zset', 'hash', 'stream'}, 'zset')
