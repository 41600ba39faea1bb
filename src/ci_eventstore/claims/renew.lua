-- Renew a controller's leases in one queue and partition.
--
-- KEYS  1 leases, 2 clock; then for each job: hash
-- ARGV  1 milliseconds of a lease; then for each job: id, claim
--
-- Returns for each job "held", "cancel" (held, and someone wants it cancelled) or "lost".

-- Libraries: clock

local leases, clock, lease_ms = KEYS[1], KEYS[2], tonumber(ARGV[1])
local now, answers = advance_clock(clock, lease_ms), {}
for i = 3, #KEYS do
  local job_id, claim = ARGV[2 * i - 4], ARGV[2 * i - 3]
  local found = redis.call('HMGET', KEYS[i], 'claim', 'cancel_line')
  if found[1] == claim then
    redis.call('ZADD', leases, now + lease_ms, job_id)
    answers[i - 2] = found[2] and 'cancel' or 'held'
  else
    answers[i - 2] = 'lost'
  end
end
return answers
