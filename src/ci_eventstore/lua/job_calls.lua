-- Calls to one job: a hash has the last one of each writer, its number, the place in the log that it reached, and its time.

-- Returns what a call to a job is answered that was here, or is none of those that may come next; nothing if it is to go on:
-- one whose place the hash hasn't reached was stopped after its first write.
local function answer_of_known(last_call, number, position, part)
  local standing, answer = recall(last_call, number)
  local reached, reached_part = string.match(answer or '', '^(%d+)%-?(%d*)')
  if standing == 'repeated' and not is_before(position, part, reached, reached_part) then
    return {'repeated', tonumber(reached)}
  end
  return standing ~= 'repeated' and standing ~= 'next' and {'lost'} or nil
end

-- Forget tokens that nobody has used for long: what is kept of one ends with the time of its last use.
local function forget_calls(calls, before_ms)
  local known = redis.call('HGETALL', calls)
  for i = 1, #known, 2 do
    if tonumber(string.match(known[i + 1], '(%d+)$') or 0) < before_ms then
      redis.pcall('HDEL', calls, known[i])
    end
  end
end

-- Whether the store has lost calls that it had acknowledged: of each token the number, or a later one, has to be there, or that it
-- was closed, which came later too. `after` has tokens and numbers, joined by spaces.
local function are_gone(calls, after)
  for token, number in string.gmatch(after, '(%S+) (%d+)') do
    local kept = redis.pcall('HGET', calls, token)
    local last = type(kept) == 'string' and tonumber(string.match(kept, '^-?%d+')) or 0
    if last >= 0 and last < tonumber(number) then
      return true
    end
  end
  return false
end

-- Note a job's call with what it comes to, and that others are closed.
local function note_call(calls, token, reached, closed, used)
  redis.call('HSET', calls, token, reached .. used)
  for closing in string.gmatch(closed, '%S+') do
    redis.call('HSET', calls, closing, '-1 0' .. used)
  end
end

-- Let what is kept of calls live on. Where there is a new token, others may be forgotten.
local function keep_calls(calls, has_new)
  if has_new and redis.call('HLEN', calls) > CALLS_KEPT then
    forget_calls(calls, now_ms - CALLS_AGE_MS)
  end
  redis.call('PEXPIRE', calls, CALLS_TTL_MS)
end
