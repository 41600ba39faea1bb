-- Append records to a job's stream, move its projection and its place in the queue with them, tell its followers: one atomic step.
-- Lines of a log that is within its budget go by `append_logs.lua`.
-- Returns {outcome, position}: "ok", or "repeated" with the position that the first time reached;
-- or {outcome} and changes nothing: "lost" (the calls that this one comes after aren't here), "exists", "missing", "gone",
-- "unprojected" (a stream without its hash), "conflict" (another version), "claimed" (and no claim was given), "fenced" (the claim isn't the
-- job's); or {"full"}: the job has ended and has had enough late output, which its log is told once.
-- A last write that is refused though all was looked at doesn't undo the call; the answer ends with its error, and `rebuild` mends it.

-- Recall and check.
local last_call, state = redis.pcall('HGET', calls, token), redis.pcall('HMGET', hash, 'version', 'position', 'part', 'bytes',
  'lines', 'truncated_at', 'end_position', 'claim', 'mark', 'end_bytes', 'log')
if state.err or last_call and last_call.err then
  -- Libraries: standing
  return failed(last_call, calls) or failed(state, hash)
end
-- Libraries: calls, job_calls, existence, sealed
local is_first = not last_call and number == 1
local answer = not is_first and answer_of_known(last_call, number, end_of_log(state[2], state[3], state[11]))
  or are_gone(calls, after) and {'lost'} or refusal(state[1], state[8], stream, expected, claim, gone, id)
if answer then
  return answer
end
-- Libraries: telling, standing, reading, indexing, recording, writing
local log, over, error = read_log(state, expected == 'new'), nil, nil
if not log then
  return damaged(hash, 'one of its counters is no number')
end

-- Decide what is to be written: `log` has it, and `over` what is over the budget.
local is_full = is_enough(log, added_bytes)
if is_full then
  -- Libraries: payloads, limits
  if not refuse_late(log, log_index) then
    return {'full'}
  end
else
  if not log.end_position and (log.truncated_at or log.bytes + added_bytes > head_bytes) then
    -- Libraries: payloads, ring, limits
    over, error = over_budget(log, log_index, ring, stream, head_bytes)
    if error then
      return error
    end
  end
  for i = 1, #given do
    set_field(log, given.name(i), given.value(i))
  end
  local next_size = string.gmatch(sizes, '%d+')
  for i = 1, #payloads do
    append_record(log, log_index, over, string.byte(kinds, i), payloads(i), next_size() + 0, next_size() + 0, i == ends_at)
  end
end

-- Look whether anything could stop it.
local listing = not is_full and #leaves + #joins > 0
  and {ids = ids, leaves = {unpack(KEYS, leaves.places())}, joins = {unpack(KEYS, joins.places())}}
local is_ended = log.end_position or ended ~= ''
local place = not is_full and #queue > 0
  and {dispatch = queue.dispatch(1), backlog = queue.backlog(1), tickets = queue.tickets(1), leases = queue.leases(1)}
error = log.error or forbidden('HSET', hash, '', '') or #lost > 0 and forbidden('HDEL', hash, '')
  or log.index_entries[1] and forbidden('RPUSH', log_index, '') or over and over:refusal()
  or is_ended and (unreadable('ZCARD', ended_jobs, unsealed) or forbidden('ZADD', unsealed, '0', ''))
if (listing or place) and not error then
  -- Libraries: listing, queue
  error = listing and unlistable(listing) or place and unready(place, queue.steps(1))
end
if told ~= '' and not is_full and not error then
  -- Libraries: facts
  log.told, error = add_facts(facts, told, id)
end
if error then
  return error
end

-- Append, project, remember. The call is noted first, so that a repeated one is known whatever happens to this one.
local used, messages = string.format(' %d', now_ms), {}
error = attempt(function()
  if not is_full then
    note_call(calls, token, string.format('%d %d-%d', number, log.position, log.part), closed, used)
  end
  write_log(log, stream, hash, over, #payloads)
  if #lost > 0 and not is_full then
    redis.call('HDEL', hash, unpack(ARGV, lost.places()))
  end
end)
if not log.is_saved then
  if log.told and log.added == 0 then
    -- Libraries: facts
    take_back(facts, log.told)
  end
  -- Libraries: stopping
  return answer_of_stopped(error, reached_by(log, over, #payloads), log.position, stream, calls, token, last_call, used)
end

-- Derive, queue; nothing waits for what is refused before it.
if listing or place then
  -- Libraries: tickets, listing, queue
  error = listing and attempt(function()
    relist(listing, member, expected == 'new' and id)
  end) or error
  error = place and attempt(function()
    move(place, id, queue.user(1), queue.waiting(1), queue.ticket(1), messages)
  end) or error
end
error = attempt(function()
  finish_log(log, log_index, over)
  if is_ended then
    -- Libraries: ends
    note_end(ended_jobs, unsealed, id, is_full and '' or ended, is_full and '' or had_ended)
  end
  keep_calls(calls, is_first and expected ~= 'new')
end) or error

-- Tell.
if expected ~= 'new' then
  tell_entries(log, stream)
end
for _, message in ipairs(messages) do
  tell(queue.channel(1), message)
end
return is_full and {'full'} or {'ok', log.position, error and error.err}
