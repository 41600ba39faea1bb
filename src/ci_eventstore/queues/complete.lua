-- Complete claimed jobs of one queue and partition, each under its own claim: one atomic step.
--
-- `completions.py` names its keys and arguments.
-- CONST INDEX_EVENTS, INDEX_BYTES, LAST_CALL_MS; COMPLETED_FIELDS, UNCLAIMED_FIELDS: what the fold says
--
-- Returns a letter for each job: "y", it is completed, or "n": nothing was changed in it, `append.lua` has to be asked. So it is
-- where the claim isn't the job's any more, where calls are lost that it comes after, where its hash can't be read, where the log has
-- outgrown its head, or where its index has a new entry due.
-- A repeated call is answered as the first time; one that comes after a later one does nothing and returns "".

-- Libraries: telling, standing, reading, calls, moves, facts

local kept = redis.pcall('GET', last_call)
local tickets_there = redis.pcall('XLEN', dispatch)
local error = failed(kept, last_call) or unreadable('ZCARD', leases, running, completed, ended_jobs, unsealed, unpack(KEYS, owned.places()))
  or failed(tickets_there, dispatch)
if error then
  return error
end
local has_tickets = tickets_there > 0 or redis.call('EXISTS', dispatch) == 1
local standing, answer = recall(kept, number)
if standing == 'repeated' or standing == 'late' then
  return standing == 'repeated' and answer or ''
end

local found, answers, is_known = {}, {}, {}
for i = 1, #jobs do
  local id, after, state = jobs.id(i), jobs.after(i), read_hash(jobs.hash(i),
    'claim', 'position', 'bytes', 'version', 'truncated_at', 'part', 'mark') or {}
  local is_plain = not state[5] and are_digits(state[2], state[3], state[4], state[6], '0')
    and state[2] + 1 < INDEX_EVENTS and state[3] + 0 < INDEX_BYTES
  if after ~= '' then
    -- Libraries: job_calls
    is_plain = is_plain and not are_gone(jobs.calls(i), after)
  end
  found[i], answers[i] = state, is_plain and state[1] == jobs.claim(i) and not is_known[id] and 'y' or 'n'
  is_known[id] = true
end

error = forbidden('HSET', leases, '', '') or forbidden('HDEL', leases, '') or forbidden('ZREM', leases, '')
  or forbidden('ZADD', leases, '0', '') or forbidden('SET', last_call, '')
  or has_tickets and (forbidden('XACK', dispatch, '', '0-0') or forbidden('XDEL', dispatch, '0-0'))
if error then
  return error
end

local ids, tickets, moves, messages, ends, writes, ending, added_to, NO_OUTCOME = {}, {}, {}, {}, {}, {}, {}, {}, {}
local function write(i)
  local state, hash, stream, payload = found[i], jobs.hash(i), jobs.stream(i), jobs.payload(i)
  local position, written = answers[i] == 'y' and state[2] + 1, nil
  -- A number alone is the id "<number>-0".
  local added = position and redis.pcall('XADD', stream, position, 'e', payload)
  if added and not added.err then
    added_to[#added_to + 1] = jobs.id(i)
    local outcome = jobs.outcome(i)
    outcome = outcome == '' and NO_OUTCOME or {string.match(outcome, '^(%S+) (%S+)$')}
    written = redis.pcall('HSET', hash, 'position', position, 'part', '0', 'end_position', position, 'end_bytes', state[3],
      'mark', mark_of(payload), COMPLETED_FIELDS, unpack(outcome))
  end
  if type(written) ~= 'number' then
    -- The stream is ahead of the hash, or is none.
    answers[i] = 'n'
  else
    local ticket = jobs.ticket(i)
    redis.pcall('HDEL', hash, UNCLAIMED_FIELDS)
    messages[#messages + 1], messages[#messages + 2] = stream,
      string.format('%s-%s %d-0:%d\n', state[2], state[6], position, #payload) .. payload .. (state[7] or '')
    ids[#ids + 1] = jobs.id(i)
    tickets[#tickets + 1] = string.find(ticket, '^%d+%-%d+$') and ticket or nil
    note_move(moves, jobs.owner(i), jobs.member(i))
    ends[#ends + 1], ends[#ends + 2] = '0', jobs.ended(i)
    writes[#writes + 1], writes[#writes + 2] = now_ms, jobs.id(i)
  end
end

for i = 1, #jobs do
  ending[#ending + 1] = answers[i] == 'y' and jobs.id(i) or nil
end
error = tell_and_write(facts, 'ec', ending, added_to, function()
  for i = 1, #jobs do
    write(i)
  end
end)
if error then
  return error
end

-- What is derived. Should a write be refused all the same, `verify` names what is left, and `rebuild` mends it.
pcall(function()
  for whose, one in pairs(moves) do
    carry_out(one, whose > 0 and owned.running(whose) or running, whose > 0 and owned.completed(whose) or completed)
  end
  call_with('ZADD', ended_jobs, ends)
  call_with('ZADD', unsealed, writes)
  call_with('ZREM', leases, ids)
  if has_tickets then
    remove_tickets(dispatch, tickets)
  end
end)
answer = table.concat(answers)
redis.pcall('SET', last_call, remember(number, answer), 'PX', LAST_CALL_MS)
tell_all(messages)
return answer
