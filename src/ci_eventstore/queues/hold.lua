-- Begin the lease of a job that its holder is about to create.
--
-- KEYS  1 clock, 2 leases of the queue without a name
-- ARGV  1 job id, 2 milliseconds of a lease
--
-- Returns 1, or 0 if there is a lease already. One whose job is never created is removed by those who look.

-- Libraries: standing, clock

local lease_ms = tonumber(ARGV[2])
local answer
local error = attempt(function()
  local deadline = string.format('%d', advance_clock(KEYS[1], lease_ms) + lease_ms)
  answer = redis.call('ZADD', KEYS[2], 'NX', deadline, ARGV[1])
end)
return error and named(error, {'hash', 'zset'}) or answer
