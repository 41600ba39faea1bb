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
--       18 how many fields to set, 19 how many to remove
--       20 tokens and numbers of calls that this one comes after, joined by spaces; then the fields, as names and values, then names
--       then the records' payloads
-- CONST LOG, FACT, INDEX_EVENTS, INDEX_BYTES, RING_BYTES, RING_ENTRY_BYTES, LATE_BYTES, CALLS_KEPT, CALLS_AGE_MS, CALLS_TTL_MS,
--       TOLD_BYTES, TOLD_ENTRIES
--
-- Returns {outcome, position}: "ok", or "repeated" with the position that the first time reached;
-- or {outcome} and changes nothing: "lost" (the calls that this one comes after aren't here), "exists", "missing",
-- "unprojected" (a stream without its hash), "conflict" (another version), "sizes" (they are needed),
-- "claimed" (by a controller, and no claim was given), "fenced" (another claim than that of the job was given);
-- or {"full"}: the job has ended and has had enough late output, which its log is told once.
-- What it looks at comes before what it writes: the call, the entries, the job's hash, what is derived, messages. A last write that
-- is refused all the same doesn't undo the call; the answer ends with its error, and `rebuild` mends what is derived.

-- Libraries: telling, standing, calls

local hash, stream, calls, index, ids, ring = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local token, number, expected, closed = ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4]
local ends_at, kinds = tonumber(ARGV[5]), ARGV[6]
local added_bytes, added_lines, sizes, head_bytes = tonumber(ARGV[7]), tonumber(ARGV[8]), ARGV[9], tonumber(ARGV[10])
local claim, moves, user, ticket, channel = ARGV[11], ARGV[12], ARGV[13], ARGV[14], ARGV[15]
local member, leaving = ARGV[16], tonumber(ARGV[17])
local setting, removing, after = tonumber(ARGV[18]), tonumber(ARGV[19]), ARGV[20]
local before_records = 20 + 2 * setting + removing
local before_listings = moves == '' and 6 or 10
local count = #ARGV - before_records

local last_call, state = redis.pcall('HGET', calls, token), redis.pcall('HMGET', hash, 'version', 'position', 'part', 'bytes',
  'lines', 'truncated_at', 'end_position', 'end_bytes', 'claim', 'mark')
local error = failed(last_call, calls) or failed(state, hash)
if error then
  return error
end
local standing, answer = recall(last_call, number)
local reached, reached_part = string.match(answer or '', '^(%d+)%-?(%d*)')
-- A call whose place the hash hasn't reached was stopped after its first write: it goes on below.
if standing == 'repeated' and not is_before(state[2], state[3], reached, reached_part) then
  return {'repeated', tonumber(reached)}
elseif standing == 'first' and (last_call or number ~= 1) or standing == 'late' or standing == 'ahead' then
  return {'lost'}
end
if after ~= '' and are_gone(calls, after) then
  return {'lost'}
end
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
local none = expected == 'new' and '0' or ''
local counters = (state[2] or none) .. ' ' .. (state[3] or none) .. ' ' .. (state[4] or none) .. ' ' .. (state[5] or none)
  .. ' ' .. (state[6] or '0') .. ' ' .. (state[7] or '0') .. ' ' .. (state[8] or '0')
if not string.find(counters, '^%d+ %d+ %d+ %d+ %d+ %d+ %d+$') then
  return damaged(hash, 'one of its counters is no number')
end

local position, part = tonumber(state[2] or 0), tonumber(state[3] or 0)
local bytes, lines = tonumber(state[4] or 0), tonumber(state[5] or 0)
local truncated_at, end_position, end_bytes = tonumber(state[6] or -1), tonumber(state[7] or -1), tonumber(state[8] or 0)
local had_ended = end_position >= 0
local is_whole = had_ended or (truncated_at < 0 and bytes + added_bytes <= head_bytes)
local is_full = had_ended and added_bytes > 0 and bytes - end_bytes + added_bytes > LATE_BYTES
if not is_whole and sizes == '' then
  if count > 1 then
    return {'sizes'}
  end
  sizes = added_bytes .. ' ' .. added_lines
end
local place_before, mark_before = position .. '-' .. part, state[10] or ''

local indexed_position, indexed_bytes
-- Returns the entry of the sparse index that is due, if there is one.
local function next_index_entry()
  if position < INDEX_EVENTS and bytes < INDEX_BYTES then
    return nil
  end
  if not indexed_position then
    local newest = redis.pcall('LINDEX', index, -1)
    error = error or failed(newest, index)
    indexed_position, indexed_bytes = string.match(not error and newest or '', '^(%d+) %d+ (%d+)$')
    indexed_position, indexed_bytes = tonumber(indexed_position or 0), tonumber(indexed_bytes or 0)
  end
  if position - indexed_position >= INDEX_EVENTS or bytes - indexed_bytes >= INDEX_BYTES then
    indexed_position, indexed_bytes = position, bytes
    return string.format('%d %d %d', position, lines, bytes)
  end
  return nil
end

-- Nothing is refused from here on: all was looked at. Should it be all the same: how far it came.
local used, added, is_saved, is_ring_saved = string.format(' %.0f', now_ms), 0, false, true

-- The call is noted first, so that a repeated one is known whatever happens to this one.
local function note_call()
  redis.call('HSET', calls, token, remember(number, position .. '-' .. part .. used))
  for closing in string.gmatch(closed, '%S+') do
    redis.call('HSET', calls, closing, '-1 0' .. used)
  end
end

local function save(...)
  redis.call('HSET', hash, 'position', position, 'part', part, 'bytes', bytes, 'lines', lines, ...)
  is_saved = true
end

-- Returns the answer after an error. A first entry can be refused: its place is taken if the stream is ahead of the hash.
local function answer_of(error)
  local has_nothing = added == 0 or not is_ring_saved and position == tonumber(state[2])
  if is_saved then
    return {'ok', position, error and error.err}
  elseif has_nothing and last_call then
    redis.pcall('HSET', calls, token, last_call)
  elseif has_nothing then
    redis.pcall('HDEL', calls, token)
  elseif added < count or not is_ring_saved then
    redis.pcall('HSET', calls, token, '-1 0' .. used)
  end
  return (added > 0 or string.find(error.err, ' ID ', 1, true)) and {'unprojected'} or failed(error, stream)
end

local function forget_others()
  if standing == 'first' and expected ~= 'new' and redis.call('HLEN', calls) > CALLS_KEPT then
    forget_calls(calls, now_ms - CALLS_AGE_MS)
  end
  redis.call('PEXPIRE', calls, CALLS_TTL_MS)
end

if kinds == '' and is_whole and not is_full and setting + removing == 0 and moves == '' then
  -- Logs in batches: nothing but the entries themselves.
  local before = position
  position, part, bytes, lines = position + count, 0, bytes + added_bytes, lines + added_lines
  local index_entry = next_index_entry()
  error = error or forbidden('HSET', hash, '', '') or index_entry and forbidden('RPUSH', index, '')
  if error then
    return error
  end
  error = attempt(function()
    note_call()
    for i = 1, count do
      redis.call('XADD', stream, string.format('%d-0', before + i), 'e', ARGV[before_records + i])
      added = i
    end
    save('mark', mark_of(ARGV[#ARGV]))
    if index_entry then
      redis.call('RPUSH', index, index_entry)
    end
    forget_others()
  end)
  local told, size = {}, 0
  for i = 1, is_saved and count <= TOLD_ENTRIES and count or 0 do
    local length = #ARGV[before_records + i]
    told[i], size = before + i .. '-0:' .. length, size + length
  end
  if told[1] and size <= TOLD_BYTES then
    tell_entries(stream, place_before, table.concat(told, ' '), table.concat(ARGV, '', before_records + 1), mark_before)
  elseif is_saved then
    tell_places(stream, place_before, position .. '-0', mark_before)
  end
  return answer_of(error)
end

-- Libraries: tickets, queue, payloads, ring

-- First what is to be written. Entries: their ids and payloads by turns.
local entries, newest, fields, index_entries = {}, nil, {}, {}
-- What followers are told: the new entries while they are few and small, else only how far the stream goes.
local told_ids, told_payloads = '', ''

local function add(payload)
  local id = string.format('%d-%d', position, part)
  entries[#entries + 1], entries[#entries + 2], newest = id, payload, payload
  if told_ids and #told_ids < TOLD_BYTES and #told_payloads + #payload <= TOLD_BYTES then
    told_ids = told_ids .. ' ' .. id .. ':' .. #payload
    told_payloads = told_payloads .. payload
  else
    told_ids = nil
  end
end

local function append_event(payload, size, newlines)
  position, part, bytes, lines = position + 1, 0, bytes + size, lines + newlines
  add(payload)
  index_entries[#index_entries + 1] = next_index_entry()
end

local function append_fact(payload)
  part = part + 1
  add(payload)
end

local function append_line(line)
  append_event(payload_of('log') .. '\217' .. string.char(#line) .. line, #line, 2)
end

local function set(name, value)
  fields[#fields + 1], fields[#fields + 2] = name, value
end

local function note_truncation()
  append_fact(payload_of('truncating') .. '\128')
  truncated_at = position
  set('truncated_at', truncated_at)
end

error = not is_whole and unreadable('HLEN', ring)
if error then
  return error
end
local kept = not is_whole and read_ring(ring)
local function empty_ring()
  if kept.lost_bytes > 0 then
    append_line(string.format('\n[%.0f bytes in %.0f lines are left out here]\n', kept.lost_bytes, kept.lost_lines))
  end
  for place = kept.first, kept.last do
    local size, newlines, payload = ring_entry(kept, place)
    if payload then
      append_event(payload, size, newlines)
    end
  end
  kept.is_emptied = true
end

if is_full and truncated_at >= end_position then
  return {'full'}
elseif is_full then
  append_line('\n[more was written after the job had ended: it is left out here]\n')
  note_truncation()
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
      if truncated_at < 0 then
        note_truncation()
      end
      put_in_ring(kept, payload, size, newlines)
    else
      append_event(payload, size, newlines)
    end
    if i == ends_at then
      set('end_position', position)
      set('end_bytes', bytes)
    end
  end
  for i = 21, 20 + 2 * setting, 2 do
    set(ARGV[i], ARGV[i + 1])
  end
end

-- Then whether anything could stop it.
local is_ring_used, steps = kept and (kept.is_emptied or next(kept.new)), {}
for step in string.gmatch(moves, '%a+') do
  steps[step] = true
end
error = error or forbidden('HSET', hash, '', '') or removing > 0 and forbidden('HDEL', hash, '')
  or index_entries[1] and forbidden('RPUSH', index, '')
  or is_ring_used and (unreadable('XLEN', stream) or forbidden('HDEL', ring, '') or forbidden('DEL', ring))
  or #KEYS > before_listings and (unreadable('ZCARD', ids, unpack(KEYS, before_listings + 1))
    or forbidden('ZADD', ids, '0', '') or forbidden('ZREM', ids, ''))
  or moves ~= '' and unready(steps, unpack(KEYS, 7, 10))
if error then
  return error
end

error = attempt(function()
  if is_ring_used then
    is_ring_saved = kept.is_emptied
    put_new(kept)
  end
  if not is_full then
    note_call()
  end
  for i = 1, #entries, 2 do
    redis.call('XADD', stream, entries[i], 'e', entries[i + 1])
    added = i == #entries - 1 and count or 1
  end
  if is_ring_used and not kept.is_emptied then
    save_ring(kept)
    is_ring_saved = true
  end
  save('mark', newest and mark_of(newest) or mark_before, unpack(fields))
  if removing > 0 and not is_full then
    redis.call('HDEL', hash, unpack(ARGV, 21 + 2 * setting, before_records))
  end
end)
if not is_saved then
  if not is_ring_saved then
    take_back(kept)
  end
  return answer_of(error)
end

-- What is derived; nothing waits for what is refused before it.
local new_ticket
error = not is_full and attempt(function()
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
end) or error
error = moves ~= '' and attempt(function()
  if steps.drop then
    drop_lease(KEYS[7], KEYS[10], string.sub(member, 18), ticket)
  end
  if steps.leave then
    leave_queue(KEYS[7], KEYS[8], KEYS[9], user, member)
  end
  if steps.enter then
    new_ticket = enter_queue(KEYS[7], KEYS[8], KEYS[9], user, member)
  end
end) or error
error = attempt(function()
  for _, entry in ipairs(index_entries) do
    redis.call('RPUSH', index, entry)
  end
  if is_ring_used and kept.is_emptied then
    redis.call('DEL', ring)
  end
  forget_others()
end) or error

if not told_ids then
  tell_places(stream, place_before, position .. '-' .. part, mark_before)
elseif told_ids ~= '' and expected ~= 'new' then
  tell_entries(stream, place_before, string.sub(told_ids, 2), told_payloads, mark_before)
end
if new_ticket then
  tell(channel, new_ticket)
end
if steps.cancel then
  tell(channel, 'cancel ' .. string.sub(member, 18))
end
return is_full and {'full'} or answer_of(error)
