-- Say which jobs a claim would get now, so that it can declare their keys.
--
-- KEYS  1 dispatch, 2 backlog, 3 leases, 4 clock
-- ARGV  1 how many jobs with expired leases, 2 how many together, 3 milliseconds of a lease
--
-- Returns {expired, waiting}: ids of jobs whose lease has run out, then "user\0member" of queued jobs, in the order of
-- the tickets: each user's next job in turn.

local dispatch, backlog, leases, clock = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local count, lease_ms = tonumber(ARGV[2]), tonumber(ARGV[3])

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
return {expired, waiting}
