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
-- Logs take the shortest way: functions and numbers that they don't need are made after it, or where something is wrong.

local hash, stream, calls, index = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local token, number, expected, closed, kinds = ARGV[1], ARGV[2] + 0, ARGV[3], ARGV[4], ARGV[6]
local added_bytes, added_lines, sizes, head_bytes = ARGV[7] + 0, ARGV[8] + 0, ARGV[9], ARGV[10] + 0
local claim, moves, after = ARGV[11], ARGV[12], ARGV[20]

local last_call, state = redis.pcall('HGET', calls, token), redis.pcall('HMGET', hash, 'version', 'position', 'part', 'bytes',
  'lines', 'truncated_at', 'end_position', 'claim', 'mark')
if state.err or last_call and last_call.err then
  -- Libraries: standing
  return failed(last_call, calls) or failed(state, hash)
end
-- As a rule this is the first call of its token, or comes after the one that was here last.
local last_number, last_used = string.match(last_call or '', '^(%d+) %S+ (%d+)$')
local is_first = not last_call and number == 1
if not is_first and not (last_number and last_number + 1 == number) then
  -- Libraries: calls
  local standing, answer = recall(last_call, number)
  local reached, reached_part = string.match(answer or '', '^(%d+)%-?(%d*)')
  -- A call whose place the hash hasn't reached was stopped after its first write: it goes on below.
  if standing == 'repeated' and not is_before(state[2], state[3], reached, reached_part) then
    return {'repeated', tonumber(reached)}
  elseif standing ~= 'repeated' and standing ~= 'next' then
    return {'lost'}
  end
end
if after ~= '' then
  -- Libraries: calls
  if are_gone(calls, after) then
    return {'lost'}
  end
end
if expected == 'new' or not state[1] then
  -- Libraries: existence
  local standing = standing_of(state[1], stream)
  if expected ~= 'new' then
    return {standing}
  elseif standing ~= 'missing' then
    return {'exists'}
  end
elseif expected ~= 'any' and expected ~= state[1] then
  return {'conflict'}
end
if claim ~= '*' and claim ~= (state[8] or '') then
  return {claim == '' and 'claimed' or 'fenced'}
end
local none, end_bytes = expected == 'new' and '0' or '', state[7] and redis.call('HGET', hash, 'end_bytes') or '0'
local counters = (state[2] or none) .. ' ' .. (state[3] or none) .. ' ' .. (state[4] or none) .. ' ' .. (state[5] or none)
  .. ' ' .. (state[6] or '0') .. ' ' .. (state[7] or '0') .. ' ' .. end_bytes
if not string.find(counters, '^%d+ %d+ %d+ %d+ %d+ %d+ %d+$') then
  -- Libraries: standing
  return damaged(hash, 'one of its counters is no number')
end

local position, bytes, lines = (state[2] or 0) + 0, (state[4] or 0) + 0, (state[5] or 0) + 0
local truncated_at, had_ended = (state[6] or -1) + 0, state[7] ~= false
local is_whole = had_ended or truncated_at < 0 and bytes + added_bytes <= head_bytes
local is_full = had_ended and added_bytes > 0 and bytes - end_bytes + added_bytes > LATE_BYTES
local place_before, mark_before = (state[2] or '0') .. '-' .. (state[3] or '0'), state[9] or ''


-- Libraries: telling

-- Logs alone: nothing but the entries themselves.
local used, count = string.format(' %d', now_ms), #ARGV - 20
if kinds == '' and is_whole and not is_full and moves == '' and ARGV[18] == '0' and ARGV[19] == '0' then
  local before, index_entry = position, nil
  position, bytes, lines = position + count, bytes + added_bytes, lines + added_lines
  if position >= INDEX_EVENTS or bytes >= INDEX_BYTES then
    -- Libraries: standing, indexing
    local indexed_position, indexed_bytes, error = newest_indexed(index)
    if position - indexed_position >= INDEX_EVENTS or bytes - indexed_bytes >= INDEX_BYTES then
      index_entry = index_entry_of(position, lines, bytes, ARGV[20 + count])
      error = error or forbidden('RPUSH', index, '')
    end
    if error then
      return error
    end
  end
  if redis.acl_check_cmd and not redis.acl_check_cmd('HSET', hash, '', '') then
    -- Libraries: standing
    return forbidden('HSET', hash, '', '')
  end
  -- Nothing is refused from here on: all was looked at. Should it be all the same: how far it came.
  local added, is_saved = 0, false
  local is_done, error = pcall(function()
    -- The call is noted first, so that a repeated one is known whatever happens to this one.
    redis.call('HSET', calls, token, string.format('%d %d-0', number, position) .. used)
    if closed ~= '' then
      for closing in string.gmatch(closed, '%S+') do
        redis.call('HSET', calls, closing, '-1 0' .. used)
      end
    end
    for i = 1, count do
      -- A number alone is the id "<number>-0".
      redis.call('XADD', stream, before + i, 'e', ARGV[20 + i])
      added = i
    end
    redis.call('HSET', hash, 'position', position, 'part', '0', 'bytes', bytes, 'lines', lines, 'mark', mark_of(ARGV[20 + count]))
    is_saved = true
    if index_entry then
      redis.call('RPUSH', index, index_entry)
    end
    if is_first and redis.call('HLEN', calls) > CALLS_KEPT then
      -- Libraries: calls
      forget_calls(calls, now_ms - CALLS_AGE_MS)
    end
    if not last_used or now_ms - last_used >= now_ms % CALLS_AGE_MS then
      -- Once in every hour is enough.
      redis.call('PEXPIRE', calls, CALLS_TTL_MS)
    end
  end)
  if is_saved then
    local told, size = place_before, added_bytes <= TOLD_BYTES and count <= TOLD_ENTRIES and 0 or TOLD_BYTES + 1
    for i = 1, size == 0 and count or 0 do
      local length = #ARGV[20 + i]
      told, size = string.format('%s %d-0:%d', told, before + i, length), size + length
    end
    if size <= TOLD_BYTES then
      tell(stream, told .. '\n' .. (count == 1 and ARGV[21] or table.concat(ARGV, '', 21)) .. mark_before)
    else
      -- Libraries: telling
      tell_places(stream, place_before, string.format('%d-0', position), mark_before)
    end
  end
  if is_done then
    return {'ok', position}
  end
  -- Libraries: standing, stopping
  local reached = {is_saved = is_saved, is_nothing = added == 0, is_part = added < count, has_entries = added > 0}
  return answer_of_stopped(error, reached, position, stream, calls, token, last_call, used)
end

-- Libraries: telling, standing, indexing

local ids, ring, user, ticket, channel, member = KEYS[5], KEYS[6], ARGV[13], ARGV[14], ARGV[15], ARGV[16]
local id, waiting = string.sub(member, 18), user .. '\0' .. string.sub(member, 1, 16) .. '\0' .. string.sub(member, 18)
local ends_at, leaving, setting, removing = ARGV[5] + 0, ARGV[17] + 0, ARGV[18] + 0, ARGV[19] + 0
local before_records = 20 + 2 * setting + removing
local before_listings, part, error = moves == '' and 6 or 10, (state[3] or 0) + 0, nil
count = #ARGV - before_records
if not is_whole and sizes == '' then
  if count > 1 then
    return {'sizes'}
  end
  sizes = ARGV[7] .. ' ' .. ARGV[8]
end

-- First what is to be written. Entries: their ids and payloads by turns.
local entries, fields, index_entries = {}, {}, {}
local indexed_position, indexed_bytes

local function append_event(payload, size, newlines)
  position, part, bytes, lines = position + 1, 0, bytes + size, lines + newlines
  entries[#entries + 1], entries[#entries + 2] = string.format('%d-0', position), payload
  if position >= INDEX_EVENTS or bytes >= INDEX_BYTES then
    if not indexed_position then
      indexed_position, indexed_bytes, error = newest_indexed(index)
    end
    if position - indexed_position >= INDEX_EVENTS or bytes - indexed_bytes >= INDEX_BYTES then
      indexed_position, indexed_bytes = position, bytes
      index_entries[#index_entries + 1] = index_entry_of(position, lines, bytes, payload)
    end
  end
end

local function append_fact(payload)
  part = part + 1
  entries[#entries + 1], entries[#entries + 2] = string.format('%d-%d', position, part), payload
end

local function set(name, value)
  fields[#fields + 1], fields[#fields + 2] = name, value
end

-- What is needed where a log is full.
local kept, append_line, note_truncation, put, empty_ring
if is_full or not is_whole then
  -- Libraries: payloads, ring

  function append_line(line)
    append_event(payload_of('log') .. '\217' .. string.char(#line) .. line, #line, 2)
  end

  function note_truncation()
    append_fact(payload_of('truncating') .. '\128')
    truncated_at = position
    set('truncated_at', truncated_at)
  end

  if not is_whole then
    error = unreadable('HLEN', ring)
    if error then
      return error
    end
    kept = read_ring(ring)
    put, kept.put_new, kept.save, kept.take_back = put_in_ring, put_new, save_ring, take_back
  end

  function empty_ring()
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
end

if is_full and truncated_at >= tonumber(state[7]) then
  return {'full'}
elseif is_full then
  append_line('\n[more was written after the job had ended: it is left out here]\n')
  note_truncation()
else
  local next_size, is_limited = string.gmatch(sizes, '%d+'), not is_whole
  for i = 1, count do
    local payload, kind = ARGV[before_records + i], string.byte(kinds, i) or LOG
    local size, newlines = next_size(), next_size()
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
      put(kept, payload, size + 0, newlines + 0)
    else
      append_event(payload, size, newlines)
    end
    if i == ends_at then
      set('end_position', position)
      set('end_bytes', bytes)
    end
  end
  for i = 21, 20 + 2 * setting do
    fields[#fields + 1] = ARGV[i]
  end
end

-- Then whether anything could stop it.
local is_ring_used = kept and (kept.is_emptied or next(kept.new))
error = error or forbidden('HSET', hash, '', '') or removing > 0 and forbidden('HDEL', hash, '')
  or index_entries[1] and forbidden('RPUSH', index, '')
  or is_ring_used and (unreadable('XLEN', stream) or forbidden('HDEL', ring, '') or forbidden('DEL', ring))
  or #KEYS > before_listings and (unreadable('ZCARD', ids, unpack(KEYS, before_listings + 1))
    or forbidden('ZADD', ids, '0', '') or forbidden('ZREM', ids, ''))
local steps = {}
if moves ~= '' and not error then
  -- Libraries: queue
  for step in string.gmatch(moves, '%a+') do
    steps[step] = true
  end
  error = unready(steps, unpack(KEYS, 7, 10))
end
if error then
  return error
end

local last_entry, added, is_saved, is_ring_saved = entries[#entries], 0, false, true
error = attempt(function()
  if is_ring_used then
    is_ring_saved = kept.is_emptied
    kept.put_new(kept)
  end
  if not is_full then
    redis.call('HSET', calls, token, string.format('%d %d-%d', number, position, part) .. used)
    for closing in string.gmatch(closed, '%S+') do
      redis.call('HSET', calls, closing, '-1 0' .. used)
    end
  end
  for i = 1, #entries, 2 do
    redis.call('XADD', stream, entries[i], 'e', entries[i + 1])
    added = i == #entries - 1 and count or 1
  end
  if is_ring_used and not kept.is_emptied then
    kept.save(kept)
    is_ring_saved = true
  end
  redis.call('HSET', hash, 'position', position, 'part', part, 'bytes', bytes, 'lines', lines, 'mark',
    last_entry and mark_of(last_entry) or mark_before, unpack(fields))
  is_saved = true
  if removing > 0 and not is_full then
    redis.call('HDEL', hash, unpack(ARGV, 21 + 2 * setting, before_records))
  end
end)

-- What is derived; nothing waits for what is refused before it.
local new_ticket
error = is_saved and not is_full and attempt(function()
  if expected == 'new' then
    redis.call('ZADD', ids, 0, id)
  end
  for i = before_listings + 1, #KEYS do
    if i <= before_listings + leaving then
      redis.call('ZREM', KEYS[i], member)
    else
      redis.call('ZADD', KEYS[i], 0, member)
    end
  end
end) or error
if is_saved and moves ~= '' then
  -- Libraries: tickets, queue
  error = attempt(function()
    if steps.drop then
      drop_lease(KEYS[7], KEYS[10], id, ticket)
    end
    if steps.leave then
      leave_queue(KEYS[7], KEYS[8], KEYS[9], user, waiting)
    end
    if steps.enter then
      new_ticket = enter_queue(KEYS[7], KEYS[8], KEYS[9], user, waiting)
    end
  end) or error
end
if is_saved then
  error = attempt(function()
    for _, entry in ipairs(index_entries) do
      redis.call('RPUSH', index, entry)
    end
    if is_ring_used and kept.is_emptied then
      redis.call('DEL', ring)
    end
    if is_first and expected ~= 'new' and redis.call('HLEN', calls) > CALLS_KEPT then
      -- Libraries: calls
      forget_calls(calls, now_ms - CALLS_AGE_MS)
    end
    redis.call('PEXPIRE', calls, CALLS_TTL_MS)
  end) or error
else
  if not is_ring_saved then
    kept.take_back(kept)
  end
  -- Libraries: stopping
  local is_nothing = added == 0 or not is_ring_saved and position == tonumber(state[2])
  local reached = {is_nothing = is_nothing, is_part = added < count or not is_ring_saved, has_entries = added > 0}
  return answer_of_stopped(error, reached, position, stream, calls, token, last_call, used)
end

-- Followers are told the new entries while they are few and small, else only how far the stream goes.
local told, told_bytes, payloads = place_before, 0, {}
for i = 1, #entries, 2 do
  local id, payload = entries[i], entries[i + 1]
  told_bytes = told_bytes + #id + #payload
  told, payloads[#payloads + 1] = told_bytes <= TOLD_BYTES and told .. ' ' .. id .. ':' .. #payload, payload
end
if not told then
  tell_places(stream, place_before, string.format('%d-%d', position, part), mark_before)
elseif payloads[1] and expected ~= 'new' then
  tell(stream, told .. '\n' .. table.concat(payloads) .. mark_before)
end
if new_ticket then
  tell(channel, new_ticket)
end
if steps.cancel then
  tell(channel, 'cancel ' .. id)
end
return is_full and {'full'} or {'ok', position, error and error.err}
