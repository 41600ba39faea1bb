-- Begin the lease of a job that its holder is about to create.
--
-- `holders.py` names its keys, those of the queue without a name, and its arguments.
--
-- Returns 1, or 0 if there is a lease already. One whose job is never created is removed by those who look.

-- Libraries: standing, reading, clock

local answer
local error = attempt(function()
  local deadline = string.format('%d', advance_clock(clock, lease_ms) + lease_ms)
  answer = redis.call('ZADD', leases, 'NX', deadline, job_id)
end)
return error and named(error, {'hash', 'zset'}) or answer
