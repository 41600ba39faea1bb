-- Append records to a job's stream and move its projection with them: one atomic step.
--
-- KEYS  1 hash, 2 stream, 3 calls, 4 sparse index, 5 ids, 6.. listings: first those to leave, then those to join
-- ARGV  1 token of the writer or of the call, 2 its number: 1, 2, 3 ..
--       3 expected: "any" (the job is there), "new" (it isn't), or the version that the records were decided on
--       4 tokens to close, joined by spaces: calls under them that are still on their way are refused
--       5 how many of the records end the job when they are in: 0, or the place of the last of them
--       6 kinds: a letter each record, v(isible) or f(act); "" if all are visible
--       7 sizes: "bytes lines" of each record's text, joined by spaces; "" if all are visible; 8 and 9 their sums
--       10 member of the listings, 11 how many listings to leave
--       12 how many fields to set, 13 how many to remove; then these, as names and values, then names
--       then the records' payloads
-- CONST INDEX_EVENTS, INDEX_BYTES, CALLS_KEPT, CALLS_AGE_MS, CALLS_TTL_MS
--
-- Returns {outcome, position}: "ok", or "repeated" with the position that the first time reached;
-- or {outcome} and changes nothing: "lost" (the token's earlier numbers aren't here), "exists", "missing",
-- "unprojected" (a stream without its hash), "conflict" (another version).

local hash, stream, calls, index, ids = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local token, number, expected, closed = ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4]
local ends_at, kinds, sizes = tonumber(ARGV[5]), ARGV[6], ARGV[7]
local added_bytes, added_lines = tonumber(ARGV[8]), tonumber(ARGV[9])
local member, leaving = ARGV[10], tonumber(ARGV[11])
local setting, removing = tonumber(ARGV[12]), tonumber(ARGV[13])
local before_records = 13 + 2 * setting + removing
local count = #ARGV - before_records

local last_call = redis.call('HGET', calls, token)
if last_call then
  local last, reached = string.match(last_call, '^(-?%d+) (%d+)')
  if tonumber(last) == number then
    return {'repeated', tonumber(reached)}
  end
  if tonumber(last) + 1 ~= number then
    return {'lost'}
  end
elseif number ~= 1 then
  return {'lost'}
end

local state = redis.call('HMGET', hash, 'version', 'position', 'part', 'bytes', 'lines')
if expected == 'new' then
  if state[1] or redis.call('EXISTS', stream) == 1 then
    return {'exists'}
  end
elseif not state[1] then
  return {redis.call('EXISTS', stream) == 1 and 'unprojected' or 'missing'}
elseif expected ~= 'any' and expected ~= state[1] then
  return {'conflict'}
end

local position, part = tonumber(state[2] or 0), tonumber(state[3] or 0)
local bytes, lines = tonumber(state[4] or 0), tonumber(state[5] or 0)
local end_position = false

local indexed_position, indexed_bytes = string.match(redis.call('LINDEX', index, -1) or '0 0 0', '^(%d+) %d+ (%d+)$')
local function add_to_index_if_due()
  if position - indexed_position >= INDEX_EVENTS or bytes - indexed_bytes >= INDEX_BYTES then
    indexed_position, indexed_bytes = position, bytes
    redis.call('RPUSH', index, string.format('%d %d %d', position, lines, bytes))
  end
end

if kinds == '' then
  -- Logs in batches: nothing but the entries themselves.
  for i = 1, count do
    redis.call('XADD', stream, string.format('%d-0', position + i), 'e', ARGV[before_records + i])
  end
  position, part, bytes, lines = position + count, 0, bytes + added_bytes, lines + added_lines
  add_to_index_if_due()
else
  local next_size = string.gmatch(sizes, '%d+')
  for i = 1, count do
    local visible = string.byte(kinds, i) == 118
    if visible then
      position, part = position + 1, 0
    else
      part = part + 1
    end
    redis.call('XADD', stream, string.format('%d-%d', position, part), 'e', ARGV[before_records + i])
    bytes, lines = bytes + tonumber(next_size()), lines + tonumber(next_size())
    if visible then
      add_to_index_if_due()
    end
    if i == ends_at then
      end_position = position
    end
  end
end

redis.call('HSET', hash, 'position', position, 'part', part, 'bytes', bytes, 'lines', lines)
if end_position then
  redis.call('HSET', hash, 'end_position', end_position)
end
for i = 14, 13 + 2 * setting, 2 do
  redis.call('HSET', hash, ARGV[i], ARGV[i + 1])
end
for i = 14 + 2 * setting, before_records do
  redis.call('HDEL', hash, ARGV[i])
end

if expected == 'new' then
  redis.call('ZADD', ids, 0, string.sub(member, 18))
end
for i = 6, #KEYS do
  if i < 6 + leaving then
    redis.call('ZREM', KEYS[i], member)
  else
    redis.call('ZADD', KEYS[i], 0, member)
  end
end

if not last_call and redis.call('HLEN', calls) >= CALLS_KEPT then
  local known = redis.call('HGETALL', calls)
  for i = 1, #known, 2 do
    local used = tonumber(string.match(known[i + 1], '(%d+)$'))
    if used < now_ms - CALLS_AGE_MS then
      redis.call('HDEL', calls, known[i])
    end
  end
end
for closing in string.gmatch(closed, '%S+') do
  redis.call('HSET', calls, closing, string.format('-1 0 %.0f', now_ms))
end
redis.call('HSET', calls, token, string.format('%d %d %.0f', number, position, now_ms))
redis.call('PEXPIRE', calls, CALLS_TTL_MS)
return {'ok', position}
