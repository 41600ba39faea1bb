-- Append lines to the log of a job that runs and whose log is within its budget, and tell its followers: one atomic step. This is
-- the way of nearly all that is written, and the shortest: what it seldom needs it makes where it is needed.
--
-- Returns {outcome, position}: "ok", or "repeated" with the position that the first time reached;
-- or {outcome} and changes nothing: "lost" (the calls that this one comes after aren't here), "missing", "unprojected" (a stream
-- without its hash), "claimed" (by a controller, and no claim was given), "fenced" (another claim than that of the job was given),
-- "limited": the log is over its budget or has ended, and `append.lua` knows what is to be done.
-- A last write that is refused though all was looked at doesn't undo the call; the answer ends with its error.

-- Recall.
local last_call, state = redis.pcall('HGET', calls, token), redis.pcall('HMGET', hash, 'version', 'position', 'part', 'bytes',
  'lines', 'truncated_at', 'end_position', 'claim', 'mark', 'log')
if state.err or last_call and last_call.err then
  -- Libraries: standing
  return failed(last_call, calls) or failed(state, hash)
end
-- As a rule this is the first call of its token, or comes after the one that was here last.
local last_number, last_used = string.match(last_call or '', '^(%d+) %S+ (%d+)$')
local is_first = not last_call and number == 1
if not is_first and not (last_number and last_number + 1 == number) then
  -- Libraries: calls, job_calls
  local answer = answer_of_known(last_call, number, state[2], state[3])
  if answer then
    return answer
  end
end
if after ~= '' then
  -- Libraries: job_calls
  if are_gone(calls, after) then
    return {'lost'}
  end
end

-- Check.
if not state[1] then
  -- Libraries: existence
  return {standing_of(state[1], stream)}
elseif claim ~= '*' and claim ~= (state[8] or '') then
  return {claim == '' and 'claimed' or 'fenced'}
elseif state[6] or state[7] or state[10] then
  return {'limited'}
end
local place_before, mark_before = (state[2] or '') .. '-' .. (state[3] or ''), state[9] or ''
if not string.find(place_before .. ' ' .. (state[4] or '') .. ' ' .. (state[5] or ''), '^%d+%-%d+ %d+ %d+$') then
  -- Libraries: standing
  return damaged(hash, 'one of its counters is no number')
end
local before, bytes, lines = state[2] + 0, state[4] + added_bytes, state[5] + added_lines
if bytes > head_bytes then
  return {'limited'}
end
local position, index_entry = before + #payloads, nil
if position >= INDEX_EVENTS or bytes >= INDEX_BYTES then
  -- Libraries: standing, indexing
  local indexed_position, indexed_bytes, error = newest_indexed(log_index)
  if position - indexed_position >= INDEX_EVENTS or bytes - indexed_bytes >= INDEX_BYTES then
    index_entry = index_entry_of(position, lines, bytes, payloads(#payloads))
    error = error or forbidden('RPUSH', log_index, '')
  end
  if error then
    return error
  end
end
if redis.acl_check_cmd and not redis.acl_check_cmd('HSET', hash, '', '') then
  -- Libraries: standing
  return forbidden('HSET', hash, '', '')
end

-- Libraries: telling

-- Append, project, remember. Nothing is refused from here on: all was looked at. Should it be all the same: how far it came.
local used, added, is_saved = string.format(' %d', now_ms), 0, false
local is_done, error = pcall(function()
  -- The call is noted first, so that a repeated one is known whatever happens to this one.
  redis.call('HSET', calls, token, string.format('%d %d-0', number, position) .. used)
  if closed ~= '' then
    for closing in string.gmatch(closed, '%S+') do
      redis.call('HSET', calls, closing, '-1 0' .. used)
    end
  end
  for i = 1, #payloads do
    -- A number alone is the id "<number>-0".
    redis.call('XADD', stream, before + i, 'e', payloads(i))
    added = i
  end
  redis.call('HSET', hash, 'position', position, 'part', '0', 'bytes', bytes, 'lines', lines, 'mark', mark_of(payloads(#payloads)))
  is_saved = true
  if index_entry then
    redis.call('RPUSH', log_index, index_entry)
  end
  if is_first and redis.call('HLEN', calls) > CALLS_KEPT then
    -- Libraries: job_calls
    forget_calls(calls, now_ms - CALLS_AGE_MS)
  end
  if not last_used or now_ms - last_used >= now_ms % CALLS_AGE_MS then
    -- Once in every hour is enough.
    redis.call('PEXPIRE', calls, CALLS_TTL_MS)
  end
end)
if is_saved then
  local told, size = place_before, added_bytes <= TOLD_BYTES and #payloads <= TOLD_ENTRIES and 0 or TOLD_BYTES + 1
  for i = 1, size == 0 and #payloads or 0 do
    local payload = payloads(i)
    told, size = string.format('%s %d-0:%d', told, before + i, #payload), size + #payload
  end
  if size <= TOLD_BYTES then
    tell(stream, told .. '\n' .. (#payloads == 1 and payloads(1) or table.concat(ARGV, '', payloads.places())) .. mark_before)
  else
    -- Libraries: telling
    tell_places(stream, place_before, string.format('%d-0', position), mark_before)
  end
end
if is_done then
  return {'ok', position}
end
-- Libraries: standing, stopping
local reached = {is_saved = is_saved, is_nothing = added == 0, is_part = added < #payloads, has_entries = added > 0}
return answer_of_stopped(error, reached, position, stream, calls, token, last_call, used)
