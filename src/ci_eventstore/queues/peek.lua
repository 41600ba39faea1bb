-- Say which jobs a claim would get now, so that it can declare their keys. A controller that has made an offer takes it back by
-- asking; it makes one if there is no job now, and is given the next one by `create.lua`.
--
-- KEYS  1 dispatch, 2 backlog, 3 leases, 4 clock, 5 offers, 6 offered
-- ARGV  1 how many jobs with expired leases, 2 how many together, 3 milliseconds of a lease, 4 controller,
--       5 its question: "session-number", a session's numbers go up; "" from those that make no offers,
--       6 milliseconds for which it makes an offer, 0: it makes none, 7 token of the last claim that its offers have brought, as
--       far as it knows
-- CONST OFFERED_TTL_MS
--
-- Returns {expired, waiting, given, made}: ids of jobs whose lease has run out; "user\0member" of queued jobs, in the order of
-- the tickets: each user's next job in turn; the last job that the session's offers have brought, as "<token of the claim>
-- <job id>"; and whether an offer was made: not if the controller has to be told of that job first.
-- A question that comes after a later one of its session is told nothing, and one that is repeated makes no new offer.

-- Libraries: standing, clock, tickets, calls

local dispatch, backlog, leases, clock, offers, offered = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local count, lease_ms = tonumber(ARGV[2]), tonumber(ARGV[3])
local controller, question, offer_ms = ARGV[4], ARGV[5], tonumber(ARGV[6])
local TYPES = {'stream', 'zset', 'zset', 'hash', 'zset', 'hash'}

-- Each user's next jobs in turn, in the order of the tickets.
local function waiting_jobs(last)
  local lines, is_known, waiting = {}, {}, {}
  repeat
    -- Tickets of users for whom nothing waits, as a group that was made again has them, take nobody's place.
    local found = redis.call('XRANGE', dispatch, '(' .. last, '+', 'COUNT', count)
    for _, ticket in ipairs(found) do
      local user = ticket[2][2]
      local line = is_known[user] and {} or jobs_of(backlog, user, count)
      is_known[user], last = true, ticket[1]
      if line[1] then
        lines[#lines + 1] = line
      end
    end
  until #found < count or #lines >= count
  local turn, has_more = 1, true
  while has_more and #waiting < count do
    has_more = false
    for _, line in ipairs(lines) do
      if line[turn] and #waiting < count then
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
  expired = redis.call('ZRANGEBYSCORE', leases, '-inf', now, 'LIMIT', 0, tonumber(ARGV[1]))
  count = count - #expired
  local last = last_ticket(dispatch)
  if last and count > 0 then
    waiting = waiting_jobs(last)
  end
  if question ~= '' then
    local token = string.match(given, '^%S+')
    local may_offer = standing ~= 'repeated' or redis.call('ZSCORE', offers, controller)
    local is_offer = offer_ms > 0 and may_offer and not expired[1] and not waiting[1] and (not token or token == ARGV[7])
    redis.call('HSET', offered, controller, string.format('%s %s %.0f\n%s', question, ARGV[3], now, given))
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
