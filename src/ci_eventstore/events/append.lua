-- Append records to a job's stream, move its projection with them, tell its followers: one atomic step.
--
-- KEYS  1 hash, 2 stream, 3 calls, 4 sparse index, 5 ids, 6 ring; if the job's place in its queue changes: dispatch,
--       backlog, tickets, leases; then listings: first those to leave, then those to join
-- ARGV  1 token of the writer or of the call, 2 its number: 1, 2, 3 ..
--       3 expected: "any" (the job is there), "new" (it isn't), or the version that the records were decided on
--       4 tokens to close, joined by spaces: calls under them that are still on their way are refused
--       5 how many of the records end the job when they are in: 0, or the place of the last of them
--       6 kinds: a letter each record, l(og), c(omplete) or f(act); "" if all are logs
--       7 and 8 how many bytes and lines the records' texts have together
--       9 sizes: "bytes lines" of each record's text, joined by spaces; "" may be given for logs
--       10 how many bytes of text the log's head may have
--       11 claim under which this is written, "*" if it needs none though there is one
--       12 what to do in the queue, "drop" (a lease), "leave", "enter", "cancel" (tell it), joined by spaces; with
--       13 user, 14 ticket of the lease, 15 channel of the queue
--       16 member of the listings, 17 how many listings to leave
--       18 how many fields to set, 19 how many to remove; then these, as names and values, then names
--       then the records' payloads
-- CONST LOG, FACT, INDEX_EVENTS, INDEX_BYTES, RING_BYTES, RING_ENTRY_BYTES, LATE_BYTES, CALLS_KEPT, CALLS_AGE_MS, CALLS_TTL_MS,
--       TOLD_BYTES, TOLD_ENTRIES
--
-- Returns {outcome, position}: "ok", or "repeated" with the position that the first time reached;
-- or {outcome} and changes nothing: "lost" (the token's earlier numbers aren't here), "exists", "missing",
-- "unprojected" (a stream without its hash), "conflict" (another version), "sizes" (they are needed),
-- "claimed" (by a controller, and no claim was given), "fenced" (another claim than that of the job was given);
-- or {"full"}: the job has ended and has had enough late output, which its log is told once.

local hash, stream, calls, index, ids, ring = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local token, number, expected, closed = ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4]
local ends_at, kinds = tonumber(ARGV[5]), ARGV[6]
local added_bytes, added_lines, sizes, head_bytes = tonumber(ARGV[7]), tonumber(ARGV[8]), ARGV[9], tonumber(ARGV[10])
local claim, moves, user, ticket, channel = ARGV[11], ARGV[12], ARGV[13], ARGV[14], ARGV[15]
local member, leaving = ARGV[16], tonumber(ARGV[17])
local setting, removing = tonumber(ARGV[18]), tonumber(ARGV[19])
local before_records = 19 + 2 * setting + removing
local before_listings = moves == '' and 6 or 10
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

local state = redis.call('HMGET', hash, 'version', 'position', 'part', 'bytes', 'lines', 'truncated_at', 'end_position',
  'end_bytes', 'claim', 'mark')
if expected == 'new' then
  if state[1] or redis.call('EXISTS', stream) == 1 then
    return {'exists'}
  end
elseif not state[1] then
  return {redis.call('EXISTS', stream) == 1 and 'unprojected' or 'missing'}
elseif expected ~= 'any' and expected ~= state[1] then
  return {'conflict'}
end
if claim ~= '*' and claim ~= (state[9] or '') then
  return {claim == '' and 'claimed' or 'fenced'}
end

local position, part = tonumber(state[2] or 0), tonumber(state[3] or 0)
local bytes, lines = tonumber(state[4] or 0), tonumber(state[5] or 0)
local truncated_at, end_position, end_bytes = tonumber(state[6] or -1), tonumber(state[7] or -1), tonumber(state[8] or 0)
local had_ended = end_position >= 0
local is_whole = had_ended or (truncated_at < 0 and bytes + added_bytes <= head_bytes)
if not is_whole and sizes == '' then
  if count > 1 then
    return {'sizes'}
  end
  sizes = added_bytes .. ' ' .. added_lines
end

local indexed_position, indexed_bytes
local function add_to_index_if_due()
  if position < INDEX_EVENTS and bytes < INDEX_BYTES then
    return
  end
  if not indexed_position then
    indexed_position, indexed_bytes = string.match(redis.call('LINDEX', index, -1) or '0 0 0', '^(%d+) %d+ (%d+)$')
  end
  if position - indexed_position >= INDEX_EVENTS or bytes - indexed_bytes >= INDEX_BYTES then
    indexed_position, indexed_bytes = position, bytes
    redis.call('RPUSH', index, string.format('%d %d %d', position, lines, bytes))
  end
end

-- What followers are told: the new entries while they are few and small, else only how far the stream goes.
local place_before, mark_before, told_ids, told_payloads = position .. '-' .. part, state[10] or '', '', ''
local function note(id, payload)
  if told_ids and #told_ids < TOLD_BYTES and #told_payloads + #payload <= TOLD_BYTES then
    told_ids = told_ids .. ' ' .. id .. ':' .. #payload
    told_payloads = told_payloads .. payload
  else
    told_ids = nil
  end
end

-- Payload of the last entry that was added to the stream.
local newest
local function append_event(payload, size, newlines)
  position, part = position + 1, 0
  local id = string.format('%d-0', position)
  redis.call('XADD', stream, id, 'e', payload)
  note(id, payload)
  newest, bytes, lines = payload, bytes + size, lines + newlines
  add_to_index_if_due()
end

local function append_fact(payload)
  part = part + 1
  local id = string.format('%d-%d', position, part)
  redis.call('XADD', stream, id, 'e', payload)
  note(id, payload)
  newest = payload
end

-- The start of a payload, msgpack: an array of four, of schema version 1, of that type and the time that it is now.
local function payload_of(kind)
  local seconds, time = math.floor(now_ms / 1000), ''
  for _ = 1, 4 do
    time = string.char(seconds % 256) .. time
    seconds = math.floor(seconds / 256)
  end
  return '\148\1' .. string.char(160 + #kind) .. kind .. '\214\255' .. time
end

local function append_line(line)
  append_event(payload_of('log') .. '\217' .. string.char(#line) .. line, #line, 2)
end

local function note_truncation()
  append_fact(payload_of('truncating') .. '\128')
  truncated_at = position
  redis.call('HSET', hash, 'truncated_at', truncated_at)
end

-- Save where the job's log stands, with further fields.
local function save(...)
  redis.call('HSET', hash, 'position', position, 'part', part, 'bytes', bytes, 'lines', lines,
    'mark', newest and mark_of(newest) or mark_before, ...)
end

local function tell_followers()
  if not told_ids then
    tell_places(stream, place_before, position .. '-' .. part, mark_before)
  elseif told_ids ~= '' and expected ~= 'new' then
    tell_entries(stream, place_before, string.sub(told_ids, 2), told_payloads, mark_before)
  end
end

if had_ended and added_bytes > 0 and bytes - end_bytes + added_bytes > LATE_BYTES then
  if truncated_at < end_position then
    append_line('\n[more was written after the job had ended: it is left out here]\n')
    note_truncation()
    save()
    tell_followers()
  end
  return {'full'}
end

-- The ring holds the end of a log whose head is full: its entries are numbered fields, "bytes lines payload".
local first, last, kept, lost_bytes, lost_lines = 1, 0, 0, 0, 0
if not is_whole and truncated_at >= 0 then
  local found = redis.call('HMGET', ring, 'first', 'last', 'kept', 'lost_bytes', 'lost_lines')
  first, last, kept = tonumber(found[1] or 1), tonumber(found[2] or 0), tonumber(found[3] or 0)
  lost_bytes, lost_lines = tonumber(found[4] or 0), tonumber(found[5] or 0)
end

local function ring_entry(place)
  local entry = redis.call('HGET', ring, place)
  local size, newlines, start = string.match(entry, '^(%d+) (%d+) ()')
  return string.sub(entry, start), tonumber(size), tonumber(newlines)
end

local function put_in_ring(payload, size, newlines)
  if truncated_at < 0 then
    note_truncation()
  end
  last, kept = last + 1, kept + #payload + RING_ENTRY_BYTES
  redis.call('HSET', ring, last, size .. ' ' .. newlines .. ' ' .. payload)
  while kept > RING_BYTES and first < last do
    local old, old_size, old_newlines = ring_entry(first)
    redis.call('HDEL', ring, first)
    first, kept = first + 1, kept - #old - RING_ENTRY_BYTES
    lost_bytes, lost_lines = lost_bytes + old_size, lost_lines + old_newlines
  end
end

local function empty_ring()
  if lost_bytes > 0 then
    append_line(string.format('\n[%.0f bytes in %.0f lines are left out here]\n', lost_bytes, lost_lines))
  end
  for place = first, last do
    append_event(ring_entry(place))
  end
  redis.call('DEL', ring)
  last = 0
end

if kinds == '' and is_whole then
  -- Logs in batches: nothing but the entries themselves.
  for i = 1, count do
    redis.call('XADD', stream, string.format('%d-0', position + i), 'e', ARGV[before_records + i])
  end
  for i = 1, count <= TOLD_ENTRIES and count or 0 do
    note(string.format('%d-0', position + i), ARGV[before_records + i])
  end
  told_ids = count <= TOLD_ENTRIES and told_ids
  position, part, bytes, lines = position + count, 0, bytes + added_bytes, lines + added_lines
  newest = ARGV[#ARGV]
  add_to_index_if_due()
else
  local next_size, is_limited = string.gmatch(sizes, '%d+'), not is_whole
  for i = 1, count do
    local payload, kind = ARGV[before_records + i], string.byte(kinds, i) or LOG
    local size, newlines = tonumber(next_size()), tonumber(next_size())
    if i == ends_at and is_limited then
      empty_ring()
      is_limited = false
    end
    if kind == FACT then
      append_fact(payload)
    elseif kind == LOG and is_limited and (truncated_at >= 0 or bytes + size > head_bytes) then
      put_in_ring(payload, size, newlines)
    else
      append_event(payload, size, newlines)
    end
    if i == ends_at then
      end_position, end_bytes = position, bytes
      redis.call('HSET', hash, 'end_position', end_position, 'end_bytes', end_bytes)
    end
  end
  if last > 0 then
    redis.call('HSET', ring, 'first', first, 'last', last, 'kept', kept, 'lost_bytes', lost_bytes, 'lost_lines', lost_lines)
  end
end

save(unpack(ARGV, 20, 19 + 2 * setting))
if removing > 0 then
  redis.call('HDEL', hash, unpack(ARGV, 20 + 2 * setting, before_records))
end

if expected == 'new' then
  redis.call('ZADD', ids, 0, string.sub(member, 18))
end
for i = before_listings + 1, #KEYS do
  if i <= before_listings + leaving then
    redis.call('ZREM', KEYS[i], member)
  else
    redis.call('ZADD', KEYS[i], 0, member)
  end
end

if string.find(moves, 'drop', 1, true) then
  drop_lease(KEYS[7], KEYS[10], string.sub(member, 18), ticket)
end
if string.find(moves, 'leave', 1, true) then
  leave_queue(KEYS[7], KEYS[8], KEYS[9], user, member)
end
local new_ticket = string.find(moves, 'enter', 1, true) and enter_queue(KEYS[7], KEYS[8], KEYS[9], user, member)

if not last_call and expected ~= 'new' and redis.call('HLEN', calls) >= CALLS_KEPT then
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

tell_followers()
if new_ticket then
  tell(channel, new_ticket)
end
if string.find(moves, 'cancel', 1, true) then
  tell(channel, 'cancel ' .. string.sub(member, 18))
end
return {'ok', position}
