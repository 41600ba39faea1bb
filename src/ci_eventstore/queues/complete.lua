-- Complete claimed jobs of one queue and partition, each under its own claim: one atomic step.
--
-- KEYS  1 the last call of whoever completes, 2 dispatch, 3 leases, 4 and 5 listings of running and of completed jobs;
--       then for each job: hash, stream, calls; then for each owner: listings of the owner's running and completed jobs
-- ARGV  1 number of the call: they go up, 2 how many jobs
--       then for each job: id, claim, ticket, member of the listings, owner: 1, 2 .., or 0 for none, "1" or "0" for the
--       result, time of the end, as text, payload of the `complete` event, tokens and numbers of calls that it comes after,
--       its outcome: "exit_code 3", "signal SIGTERM" or ""
-- CONST INDEX_EVENTS, INDEX_BYTES, LAST_CALL_MS
--
-- Returns a letter for each job: "y", it is completed, or "n": nothing was changed in it, `append.lua` has to be asked. So it is
-- where the claim isn't the job's any more, where calls are lost that it comes after, where its hash can't be read, where the log has
-- outgrown its head, or where its index has a new entry due.
-- A repeated call is answered as the first time; one that comes after a later one does nothing and returns "".

-- Libraries: telling, standing, calls

local last_call, dispatch, leases, running, completed = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local number, count = tonumber(ARGV[1]), tonumber(ARGV[2])
local BEFORE_KEYS, KEYS_EACH, BEFORE_ARGS, ARGS_EACH, NO_OUTCOME = 5, 3, 2, 10, {}
local before_owners = BEFORE_KEYS + KEYS_EACH * count

local kept = redis.pcall('GET', last_call)
local tickets_there = redis.pcall('XLEN', dispatch)
local error = failed(kept, last_call) or unreadable('ZCARD', leases, running, completed, unpack(KEYS, before_owners + 1))
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
for i = 1, count do
  local start = BEFORE_ARGS + (i - 1) * ARGS_EACH
  local id, state = ARGV[start + 1], read_hash(KEYS[BEFORE_KEYS + i * KEYS_EACH - 2],
    'claim', 'position', 'bytes', 'version', 'truncated_at', 'part', 'mark') or {}
  local is_plain = not state[5] and are_digits(state[2], state[3], state[4], state[6], '0')
    and state[2] + 1 < INDEX_EVENTS and state[3] + 0 < INDEX_BYTES
  if ARGV[start + 9] ~= '' then
    -- Libraries: calls
    is_plain = is_plain and not are_gone(KEYS[BEFORE_KEYS + i * KEYS_EACH], ARGV[start + 9])
  end
  found[i], answers[i] = state, is_plain and state[1] == ARGV[start + 2] and not is_known[id] and 'y' or 'n'
  is_known[id] = true
end

error = forbidden('HSET', leases, '', '') or forbidden('HDEL', leases, '') or forbidden('ZREM', leases, '')
  or forbidden('ZADD', leases, '0', '') or forbidden('SET', last_call, '')
  or has_tickets and (forbidden('XACK', dispatch, '', '0-0') or forbidden('XDEL', dispatch, '0-0'))
if error then
  return error
end

local ids, tickets, members, joining, owned, messages = {}, {}, {}, {}, {}, {}
for i = 1, count do
  local start, state = BEFORE_ARGS + (i - 1) * ARGS_EACH, found[i]
  local hash, stream = KEYS[BEFORE_KEYS + i * KEYS_EACH - 2], KEYS[BEFORE_KEYS + i * KEYS_EACH - 1]
  local payload, position, written = ARGV[start + 8], answers[i] == 'y' and state[2] + 1, nil
  -- A number alone is the id "<number>-0".
  local added = position and redis.pcall('XADD', stream, position, 'e', payload)
  if added and not added.err then
    local outcome = ARGV[start + 10] == '' and NO_OUTCOME or {string.match(ARGV[start + 10], '^(%S+) (%S+)$')}
    written = redis.pcall('HSET', hash, 'status', 'completed', 'success', ARGV[start + 6], 'end_time', ARGV[start + 7],
      'end_time_from_event', '1', 'has_complete', '1', 'position', position, 'part', '0', 'end_position', position,
      'end_bytes', state[3], 'version', state[4] + 1, 'mark', mark_of(payload),
      unpack(outcome))
  end
  if type(written) ~= 'number' then
    -- The stream is ahead of the hash, or is none.
    answers[i] = 'n'
  else
    local member, owner = ARGV[start + 4], ARGV[start + 5]
    redis.pcall('HDEL', hash, 'controller', 'claim', 'ticket', 'cancel_line')
    local place = #ids + 1
    messages[2 * place - 1] = stream
    messages[2 * place] = string.format('%s-%s %d-0:%d\n', state[2], state[6], position, #payload) .. payload .. (state[7] or '')
    ids[place], members[place] = ARGV[start + 1], member
    if string.find(ARGV[start + 3], '^%d+%-%d+$') then
      tickets[#tickets + 1] = ARGV[start + 3]
    end
    joining[2 * place - 1], joining[2 * place] = '0', member
    if owner ~= '0' then
      local line = owned[owner] or {members = {}, joining = {}}
      owned[owner] = line
      line.members[#line.members + 1] = member
      line.joining[#line.joining + 1] = '0'
      line.joining[#line.joining + 1] = member
    end
  end
end

-- What is derived. Should a write be refused all the same, `verify` names what is left, and `rebuild` mends it.
pcall(function()
  if not ids[1] then
    return
  end
  redis.call('ZREM', running, unpack(members))
  redis.call('ZADD', completed, unpack(joining))
  for owner, line in pairs(owned) do
    redis.call('ZREM', KEYS[before_owners + 2 * owner - 1], unpack(line.members))
    redis.call('ZADD', KEYS[before_owners + 2 * owner], unpack(line.joining))
  end
  redis.call('ZREM', leases, unpack(ids))
  if tickets[1] and has_tickets then
    redis.call('XACK', dispatch, 'controllers', unpack(tickets))
    redis.call('XDEL', dispatch, unpack(tickets))
  end
end)
answer = table.concat(answers)
redis.pcall('SET', last_call, remember(number, answer), 'PX', LAST_CALL_MS)
-- As `telling.lua` has them; of many jobs at once.
for i = 1, #messages, 2 do
  redis.pcall('PUBLISH', messages[i], messages[i + 1])
end
return answer
