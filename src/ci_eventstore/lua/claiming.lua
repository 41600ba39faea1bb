-- Claims of jobs, each a table: its id, keys and token, then its hash as `state`, the ticket, and who lost it.

local STATUSES = {queued = true, running = true, completed = true, failed = true, cancelled = true}

-- Returns a job's hash; or nothing, and notes what in it can't be read. Whether its stream is there shows when it is written.
local function read_job(job, damages)
  local state, wrong = read_all(job.hash), nil
  job.state = state
  if not state then
    wrong = 'its hash'
  elseif state.status and not STATUSES[state.status] then
    wrong = 'status'
  elseif state.status and not are_digits(state.position, state.part, state.version, state.epoch, state.attempts) then
    for _, name in ipairs({'position', 'part', 'version', 'epoch', 'attempts'}) do
      wrong = wrong or not whole(state[name]) and name
    end
  end
  if wrong then
    damages[#damages + 1] = {job.id, wrong}
    return nil
  end
  return state
end

-- Returns a function that makes jobs the controller's, all at one time: their `claimed` fact and the fields of their hashes.
local function claims_of(controller, time, packed_time)
  local payload_of_claim, texts = claimed_payloads(packed_time, controller), {}

  -- Jobs that are given together have mostly the same numbers.
  local function text_of(number)
    local text = texts[number] or string.format('%d', number)
    texts[number] = text
    return text
  end

  -- Returns the message for the job's followers; or nothing, and the error; and whether the claim is in the job's stream.
  return function(job, ticket)
    local state = job.state
    local epoch, attempts = state.epoch + 1, state.attempts + 1
    local part, version, claim = text_of(state.part + 1), text_of(state.version + 1), text_of(epoch) .. ' ' .. job.token
    local payload = payload_of_claim(epoch, attempts, claim, ticket)
    local entry, mark, started_at = state.position .. '-' .. part, mark_of(payload), state.start_time or time
    local written = redis.pcall('XADD', job.stream, 'NOMKSTREAM', entry, 'e', payload)
    local is_added = written and not written.err
    if is_added then
      epoch, attempts = text_of(epoch), text_of(attempts)
      written = redis.pcall('HSET', job.hash, 'part', part, 'mark', mark, CLAIM_FIELDS)
    end
    if type(written) ~= 'number' then
      state.claim = nil
      return nil, written and written.err or 'its events', is_added
    end
    local message = state.position .. '-' .. state.part .. ' ' .. entry .. ':' .. text_of(#payload) .. '\n' .. payload
      .. (state.mark or '')
    state.mark, state.part, state.version, state.status, state.epoch = mark, part, version, 'running', epoch
    state.attempts, state.controller, state.claim, state.ticket, state.start_time = attempts, controller, claim, ticket, started_at
    return message, nil, true
  end
end

-- Returns the ids of the jobs that are to be given, but for those that their controller holds already.
local function starting_in(given)
  local ids = {}
  for _, job in ipairs(given) do
    ids[#ids + 1] = not job.is_held and job.id or nil
  end
  return ids
end

-- Returns the error if the script's user may not do what giving jobs takes.
local function unclaimable(dispatch, tickets, leases)
  return forbidden('XADD', dispatch, '*', '', '') or forbidden('ZADD', leases, '0', '') or forbidden('ZREM', leases, '')
    or forbidden('XCLAIM', dispatch, '', '', '0', '0-0') or forbidden('HDEL', tickets, '')
    or forbidden('XREADGROUP', 'GROUP', '', '', 'STREAMS', dispatch, '>') or forbidden('XACK', dispatch, '', '0-0')
    or forbidden('XDEL', dispatch, '0-0')
end
