-- Append records of any kind to a job's stream, move its projection and its place in the queue with them, tell its followers: one
-- atomic step. Lines of a log that is within its budget go by `append_logs.lua`.
--
-- Returns {outcome, position}: "ok", or "repeated" with the position that the first time reached;
-- or {outcome} and changes nothing: "lost" (the calls that this one comes after aren't here), "exists", "missing", "unprojected" (a
-- stream without its hash), "conflict" (another version), "claimed" (by a controller, and no claim was given), "fenced" (another
-- claim than that of the job was given); or {"full"}: the job has ended and has had enough late output, which its log is told once.
-- What it looks at comes before what it writes: the call, the entries, the job's hash, what is derived, messages. A last write that
-- is refused all the same doesn't undo the call; the answer ends with its error, and `rebuild` mends what is derived.

-- Recall and check.
local last_call, state = redis.pcall('HGET', calls, token), redis.pcall('HMGET', hash, 'version', 'position', 'part', 'bytes',
  'lines', 'truncated_at', 'end_position', 'claim', 'mark', 'end_bytes')
if state.err or last_call and last_call.err then
  -- Libraries: standing
  return failed(last_call, calls) or failed(state, hash)
end
local is_first = not last_call and number == 1
-- Libraries: calls, existence
local answer = not is_first and answer_of_known(last_call, number, state[2], state[3]) or are_gone(calls, after) and {'lost'}
  or refusal(state[1], state[8], stream, expected, claim)
if answer then
  return answer
end
-- Libraries: telling, standing, indexing, recording
local has_end, none = state[7] ~= false, expected == 'new' and '0' or nil
if not are_digits(state[2] or none, state[3] or none, state[4] or none, state[5] or none, state[6] or '0')
  or has_end and not are_digits(state[7], state[10], '0', '0', '0') then
  return damaged(hash, 'one of its counters is no number')
end

-- Decide what is to be written.
local log, kept, limits = read_log(state, log_index), nil, nil
local place_before, mark_before = string.format('%d-%d', log.position, log.part), state[9] or ''
local is_whole = has_end or log.truncated_at < 0 and log.bytes + added_bytes <= head_bytes
local is_full = has_end and added_bytes > 0 and log.bytes - state[10] + added_bytes > LATE_BYTES
if is_full and log.truncated_at >= state[7] + 0 then
  return {'full'}
elseif is_full or not is_whole then
  -- Libraries: payloads, ring, limits
  limits = {take = take_line, empty = empty_ring, put = put_new, save = save_ring, take_back = take_back}
  log.error = not is_whole and unreadable('HLEN', ring)
  if log.error then
    return log.error
  elseif is_full then
    refuse_late(log)
  else
    kept = read_ring(ring)
  end
end
local next_size = string.gmatch(sizes, '%d+')
for i = 1, is_full and 0 or #payloads do
  local payload, kind, size, newlines = payloads(i), string.byte(kinds, i), next_size() + 0, next_size() + 0
  if i == ends_at and kept then
    limits.empty(log, kept)
  end
  if kind == FACT then
    append_fact(log, payload)
  elseif kind == LOG and kept and not kept.is_emptied then
    limits.take(log, kept, payload, size, newlines, head_bytes)
  else
    append_event(log, payload, size, newlines)
  end
  if i == ends_at then
    set_field(log, 'end_position', log.position)
    set_field(log, 'end_bytes', log.bytes)
  end
end
for i = 1, is_full and 0 or #given do
  set_field(log, given.name(i), given.value(i))
end

-- Look whether anything could stop it.
local is_ring_used, steps = kept and (kept.is_emptied or next(kept.new)), {}
local error = log.error or forbidden('HSET', hash, '', '') or #lost > 0 and forbidden('HDEL', hash, '')
  or log.index_entries[1] and forbidden('RPUSH', log_index, '')
  or is_ring_used and (unreadable('XLEN', stream) or forbidden('HDEL', ring, '') or forbidden('DEL', ring))
  or (has_end or ended ~= '') and (unreadable('ZCARD', ended_jobs, unsealed) or forbidden('ZADD', unsealed, '0', ''))
  or #leaves + #joins > 0 and (unreadable('ZCARD', ids, unpack(KEYS, leaves.places()))
    or unreadable('ZCARD', unpack(KEYS, joins.places())) or forbidden('ZADD', ids, '0', '') or forbidden('ZREM', ids, ''))
if #queue > 0 and not error then
  -- Libraries: queue
  for step in string.gmatch(queue.steps(1), '%a+') do
    steps[step] = true
  end
  error = unready(steps, queue.dispatch(1), queue.backlog(1), queue.tickets(1), queue.leases(1))
end
if error then
  return error
end

-- Write: the call, the entries, the hash.
local is_ring_saved, used = true, string.format(' %d', now_ms)
error = attempt(function()
  if is_ring_used then
    is_ring_saved = kept.is_emptied
    limits.put(kept)
  end
  if not is_full then
    note_call(calls, token, string.format('%d %d-%d', number, log.position, log.part), closed, used)
  end
  write_entries(log, stream, #payloads)
  if is_ring_used and not kept.is_emptied then
    limits.save(kept)
    is_ring_saved = true
  end
  save_log(log, hash, mark_before)
  if #lost > 0 and not is_full then
    redis.call('HDEL', hash, unpack(ARGV, lost.places()))
  end
end)
if not log.is_saved then
  if not is_ring_saved then
    limits.take_back(kept)
  end
  -- Libraries: stopping
  local is_nothing = log.added == 0 or not is_ring_saved and log.position == tonumber(state[2])
  local reached = {is_nothing = is_nothing, is_part = log.added < #payloads or not is_ring_saved, has_entries = log.added > 0}
  return answer_of_stopped(error, reached, log.position, stream, calls, token, last_call, used)
end

-- Write what is derived; nothing waits for what is refused before it.
local message
error = not is_full and attempt(function()
  if expected == 'new' then
    redis.call('ZADD', ids, 0, id)
  end
  for i = 1, #leaves do
    redis.call('ZREM', leaves(i), member)
  end
  for i = 1, #joins do
    redis.call('ZADD', joins(i), 0, member)
  end
end) or error
if has_end or ended ~= '' then
  -- Libraries: ends
  error = attempt(function()
    note_end(ended_jobs, unsealed, id, is_full and '' or ended, is_full and '' or had_ended)
  end) or error
end
if #queue > 0 then
  -- Libraries: tickets, queue
  error = attempt(function()
    if steps.drop then
      drop_lease(queue.dispatch(1), queue.leases(1), id, queue.ticket(1))
    end
    if steps.leave then
      leave_queue(queue.dispatch(1), queue.backlog(1), queue.tickets(1), queue.user(1), queue.waiting(1))
    end
    if steps.enter then
      message = enter_queue(queue.dispatch(1), queue.backlog(1), queue.tickets(1), queue.user(1), queue.waiting(1))
    end
  end) or error
end
error = attempt(function()
  for _, entry in ipairs(log.index_entries) do
    redis.call('RPUSH', log_index, entry)
  end
  if is_ring_used and kept.is_emptied then
    redis.call('DEL', ring)
  end
  keep_calls(calls, is_first and expected ~= 'new')
end) or error

-- Tell.
if expected ~= 'new' then
  tell_entries(log, stream, place_before, mark_before)
end
if message then
  tell(queue.channel(1), message)
end
if steps.cancel then
  tell(queue.channel(1), 'cancel ' .. id)
end
return is_full and {'full'} or {'ok', log.position, error and error.err}
