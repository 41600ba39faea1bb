-- Move the clock, and say which jobs' holders have given no sign of life for their leases: whoever reads may look.
--
-- `holders.py` names its keys, those of the queue without a name.
-- CONST LOOKED_JOBS, DEFAULT_LEASE_MS
--
-- Returns {milliseconds of the shortest lease in use, ids of jobs}; {0, {}} where there is no lease, and nothing to wait for.

-- Libraries: standing, reading, clock

if redis.call('ZCARD', leases) == 0 then
  return {0, {}}
end
local fields, shortest = redis.call('HGETALL', clock), nil
for i = 1, #fields, 2 do
  local length = tonumber(string.match(fields[i], '^lease:(%d+)$'))
  if length and (not shortest or length < shortest) then
    shortest = length
  end
end
local now = advance_clock(clock, shortest or DEFAULT_LEASE_MS)
return {shortest or DEFAULT_LEASE_MS, redis.call('ZRANGEBYSCORE', leases, '-inf', now, 'LIMIT', 0, LOOKED_JOBS)}
