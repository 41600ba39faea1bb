-- Jobs whose controllers give no sign of life.

-- Give those whose leases have run out, of the first `expired` candidates. Returns how many leases have, and the ids of leases that no
-- job has, or none that can be read.
local function give_lapsed(candidates, expired, leases, now, given, damages)
  local lapsed, dropped = 0, {}
  for place = 1, expired do
    local job = candidates[place]
    local deadline = redis.call('ZSCORE', leases, job.id)
    local is_over, state = deadline and deadline + 0 <= now, deadline and read_job(job, damages)
    local claim = state and state.claim
    lapsed = lapsed + (is_over and 1 or 0)
    if deadline and not claim then
      dropped[#dropped + 1] = job.id
    elseif claim and string.match(claim, '%S+$') == job.token then
      -- Repeated, and another call of this name came in between.
      given[#given + 1], job.is_held = job, true
    elseif claim and is_over then
      given[#given + 1], job.ticket, job.lost_by = job, state.ticket or '', state.controller
    end
  end
  return lapsed, dropped
end
