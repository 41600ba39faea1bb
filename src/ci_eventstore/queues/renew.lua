-- Renew a controller's leases in one queue and partition.
--
-- `lease_keeper.py` names its keys and arguments.
--
-- Returns for each job "held", "cancel" (held, and someone wants it cancelled), "lost", or "damaged": its hash can't be read.

-- Libraries: standing, reading, clock

local answers, leased = {}, {}
local function renew()
  local deadline = string.format('%.0f', advance_clock(clock, lease_ms) + lease_ms)
  for i = 1, #jobs do
    local found = read_hash(jobs.hash(i), 'claim', 'cancel_line')
    if found and found[1] == jobs.claim(i) then
      leased[#leased + 1] = deadline
      leased[#leased + 1] = jobs.id(i)
      answers[i] = found[2] and 'cancel' or 'held'
    else
      answers[i] = found and 'lost' or 'damaged'
    end
  end
  if leased[1] then
    redis.call('ZADD', leases, unpack(leased))
  end
end

local error = attempt(renew)
return error and named(error, {'zset', 'hash'}, 'hash') or answers
