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

-- Libraries: clock, standing, tickets

local dispatch, backlog, leases, clock, offers, offered = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local count, lease_ms = tonumber(ARGV[2]), tonumber(ARGV[3])
local controller, question, offer_ms = ARGV[4], ARGV[5], tonumber(ARGV[6])

local given, is_repeated = '', false
if question ~= '' then
  local record = redis.call('HGET', offered, controller) or ''
  local session, number = string.match(record, '^(%x+)-(%d+)')
  if session == string.match(question, '^%x+') then
    local asked = tonumber(string.match(question, '%d+$'))
    if tonumber(number) > asked then
      return {{}, {}, '', 0}
    end
    is_repeated = tonumber(number) == asked
    given = string.match(record, '\n(.*)') or ''
  end
end

local now = advance_clock(clock, lease_ms)
local expired = redis.call('ZRANGEBYSCORE', leases, '-inf', now, 'LIMIT', 0, tonumber(ARGV[1]))
count = count - #expired

local waiting, last = {}, last_ticket(dispatch)
if last and count > 0 then
  local lines, is_known = {}, {}
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
end

local is_made = 0
if question ~= '' then
  local token = string.match(given, '^%S+')
  local may_offer = not is_repeated or redis.call('ZSCORE', offers, controller)
  if offer_ms > 0 and may_offer and not expired[1] and not waiting[1] and (not token or token == ARGV[7]) then
    redis.call('ZADD', offers, now + offer_ms, controller)
    is_made = 1
  else
    redis.call('ZREM', offers, controller)
  end
  redis.call('HSET', offered, controller, string.format('%s %s %.0f\n%s', question, ARGV[3], now, given))
  redis.call('PEXPIRE', offered, OFFERED_TTL_MS)
end
return {expired, waiting, given, is_made}
