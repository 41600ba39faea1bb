-- Say which jobs a claim would get now, so that it can declare their keys. A controller that has made an offer takes it back by
-- asking; it makes one if there is no job now, and is given the next one by `create.lua`.
--
-- `claim.py` names its keys and arguments.
-- CONST OFFERED_TTL_MS
--
-- Returns {expired, waiting, given, made}: ids of jobs whose lease has run out; members of the backlog, in the order of
-- the tickets: each user's next job in turn; the last job that the session's offers have brought, as "<token of the claim>
-- <job id>"; and whether an offer was made: not if the controller has to be told of that job first.
-- A question that comes after a later one of its session is told nothing, and one that is repeated makes no new offer.

-- Libraries: standing, reading, clock, tickets, calls

local TYPES = {'stream', 'zset', 'zset', 'hash', 'zset', 'hash'}

-- Each user's next jobs in turn, in the order of the tickets.
local function waiting_jobs(last)
  local lines, is_known, waiting = {}, {}, {}
  repeat
    -- Tickets of users for whom nothing waits, as a group that was made again has them, take nobody's place.
    local found = redis.call('XRANGE', dispatch, '(' .. last, '+', 'COUNT', limit)
    for _, ticket in ipairs(found) do
      local user = ticket[2][2]
      local line = is_known[user] and {} or jobs_of(backlog, user, limit)
      is_known[user], last = true, ticket[1]
      if line[1] then
        lines[#lines + 1] = line
      end
    end
  until #found < limit or #lines >= limit
  local turn, has_more = 1, true
  while has_more and #waiting < limit do
    has_more = false
    for _, line in ipairs(lines) do
      if line[turn] and #waiting < limit then
        waiting[#waiting + 1] = line[turn]
        has_more = true
      end
    end
    turn = turn + 1
  end
  return waiting
end

local expired, waiting, given, is_made = {}, {}, '', 0
local function look()
  local kept, number, standing
  if question ~= '' then
    kept, number = of_session(redis.call('HGET', offered, controller), question)
    standing, kept = recall(kept, number)
    given = string.match(kept or '', '\n(.*)') or ''
    if standing == 'late' then
      given = ''
      return
    end
  end
  local now = advance_clock(clock, lease_ms)
  expired = redis.call('ZRANGEBYSCORE', leases, '-inf', now, 'LIMIT', 0, expired_count)
  limit = limit - #expired
  local last = last_ticket(dispatch)
  if last and limit > 0 then
    waiting = waiting_jobs(last)
  end
  if question ~= '' then
    local token = string.match(given, '^%S+')
    local may_offer = standing ~= 'repeated' or redis.call('ZSCORE', offers, controller)
    local is_offer = offer_ms > 0 and may_offer and not expired[1] and not waiting[1] and (not token or token == newest)
    redis.call('HSET', offered, controller, string.format('%s %s %.0f\n%s', question, lease_ms, now, given))
    redis.call('PEXPIRE', offered, OFFERED_TTL_MS)
    if is_offer then
      redis.call('ZADD', offers, now + offer_ms, controller)
      is_made = 1
    else
      redis.call('ZREM', offers, controller)
    end
  end
end

local error = attempt(look)
return error and named(error, TYPES) or {expired, waiting, given, is_made}
