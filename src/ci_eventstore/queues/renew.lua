-- Renew a controller's leases in one queue and partition.
--
-- KEYS  1 leases, 2 clock; then for each job: hash
-- ARGV  1 milliseconds of a lease; then for each job: id, claim
--
-- Returns for each job "held", "cancel" (held, and someone wants it cancelled), "lost", or "damaged": its hash can't be read.

-- Libraries: standing, clock

local leases, clock, lease_ms = KEYS[1], KEYS[2], tonumber(ARGV[1])
local answers, leased = {}, {}
local function renew()
  local deadline = string.format('%.0f', advance_clock(clock, lease_ms) + lease_ms)
  for i = 3, #KEYS do
    local job_id, claim = ARGV[2 * i - 4], ARGV[2 * i - 3]
    local found = read_hash(KEYS[i], 'claim', 'cancel_line')
    if found and found[1] == claim then
      leased[#leased + 1] = deadline
      leased[#leased + 1] = job_id
      answers[i - 2] = found[2] and 'cancel' or 'held'
    else
      answers[i - 2] = found and 'lost' or 'damaged'
    end
  end
  if leased[1] then
    redis.call('ZADD', leases, unpack(leased))
  end
end

local error = attempt(renew)
return error and named(error, {'zset', 'hash'}, 'hash') or answers
