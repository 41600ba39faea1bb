-- Make a job's hash, sparse index, ring, listings and place in its queue as its stream says: one atomic step, which looks at
-- each of them and changes only what is wrong.
--
-- KEYS  1 hash, 2 stream, 3 sparse index, 4 ring, 5 ids, 6 dispatch, 7 backlog, 8 tickets, 9 leases, 10 clock,
--       11 ended, 12 unsealed, 13.. listings: first those to leave, then those to join
-- ARGV  1 the stream's last id that was folded, 2 job id, 3 sort key of its creation, 4 user, 5 whether it is queued, 6 whether
--       it is claimed, 7 whether it may have a ring, 8 the queue's channel, 9 how many listings to leave, 10 how many fields,
--       11 its member of the ended, "" for none;
--       then these, as names and values; then the sparse index's entries
-- CONST REBUILT_LEASE_MS
--
-- Returns "right" (nothing had to be changed), "mended", or "changed" and changes nothing: the stream has gone on.

-- Libraries: telling, standing, reading, calls, clock, tickets, queue, mending

local hash, stream, index, ring, ids = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local dispatch, backlog, tickets, leases, clock = KEYS[6], KEYS[7], KEYS[8], KEYS[9], KEYS[10]
local job_id, user, is_queued, is_claimed = ARGV[2], ARGV[4], ARGV[5] == '1', ARGV[6] == '1'
local has_ring, channel, leaving, fields = ARGV[7] == '1', ARGV[8], tonumber(ARGV[9]), tonumber(ARGV[10])
local ended, unsealed, ended_member = KEYS[11], KEYS[12], ARGV[11]
local BEFORE_LISTINGS, BEFORE_FIELDS = 12, 11

local last = redis.call('XREVRANGE', stream, '+', '-', 'COUNT', 1)
if not last[1] or last[1][1] ~= ARGV[1] then
  return 'changed'
end

must_be('hash', hash, ring, tickets, clock)
must_be('list', index)
must_be('zset', ids, backlog, leases, ended, unsealed, unpack(KEYS, BEFORE_LISTINGS + 1))
must_be('stream', dispatch)
local known, expected = redis.call('HGETALL', hash), {}
for i = BEFORE_FIELDS + 1, BEFORE_FIELDS + 2 * fields, 2 do
  expected[ARGV[i]] = ARGV[i + 1]
end
for i = 1, #known, 2 do
  if not expected[known[i]] then
    mend('HDEL', hash, known[i])
  elseif expected[known[i]] == known[i + 1] then
    expected[known[i]] = nil
  end
end
for name, value in pairs(expected) do
  mend('HSET', hash, name, value)
end

local entries, is_right = redis.call('LRANGE', index, 0, -1), true
local before_entries = BEFORE_FIELDS + 2 * fields
for i = 1, math.max(#entries, #ARGV - before_entries) do
  is_right = is_right and entries[i] == ARGV[before_entries + i]
end
if not is_right then
  mend('DEL', index)
  for i = before_entries + 1, #ARGV do
    redis.call('RPUSH', index, ARGV[i])
  end
end
if not has_ring and redis.call('EXISTS', ring) == 1 then
  mend('DEL', ring)
end

local function stand_in(listing, name, belongs, score)
  local is_there = redis.call('ZSCORE', listing, name)
  if belongs and not is_there then
    mend('ZADD', listing, score or '0', name)
  elseif is_there and not belongs then
    mend('ZREM', listing, name)
  end
end

stand_in(ids, job_id, true)
stand_in(unsealed, job_id, ended_member ~= '', now_ms)
if ended_member ~= '' then
  stand_in(ended, ended_member, true)
end
for i = BEFORE_LISTINGS + 1, #KEYS do
  stand_in(KEYS[i], ARGV[3] .. ':' .. job_id, i > BEFORE_LISTINGS + leaving)
end

local waiting, message = user .. '\0' .. ARGV[3] .. '\0' .. job_id, nil
if is_queued then
  stand_in(backlog, waiting, true)
  if not is_waiting(dispatch, ticket_of(tickets, user)) then
    mend('HDEL', tickets, user)
    message = enter_queue(dispatch, backlog, tickets, user, waiting)
  end
elseif redis.call('ZSCORE', backlog, waiting) then
  answer = 'mended'
  leave_queue(dispatch, backlog, tickets, user, waiting)
end
local deadline = redis.call('ZSCORE', leases, job_id)
if is_claimed and not deadline then
  local lease_ms = REBUILT_LEASE_MS
  mend('ZADD', leases, advance_clock(clock, lease_ms) + lease_ms, job_id)
elseif deadline and not is_claimed then
  mend('ZREM', leases, job_id)
end
if message then
  tell(channel, message)
end
return answer
