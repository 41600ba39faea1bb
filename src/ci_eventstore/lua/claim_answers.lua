-- What a claim answers, and what is kept of it, so that a repeated call gets the same: places of jobs, and who lost them.

local function remembered(call, given)
  local texts = {call}
  for i, job in ipairs(given) do
    texts[i + 1] = string.format('%d:%s', job.place, job.lost_by or '')
  end
  return table.concat(texts, ' ')
end

-- Returns the jobs that a call got before, as far as they can be read.
local function given_before(answer, candidates, damages)
  local given = {}
  for place, lost_by in string.gmatch(' ' .. answer, ' (%d+):(%S*)') do
    local job = candidates[tonumber(place)]
    if job and read_job(job, damages) then
      given[#given + 1], job.lost_by = job, lost_by
    end
  end
  return given
end

-- Returns each job that has its claim: its id, the controller that lost it or "", and fields of its hash.
local function answered(given, names)
  local answers = {}
  for _, job in ipairs(given) do
    local state, values = job.state, {}
    if string.sub(state.claim or '', -#job.token) == job.token then
      for i, name in ipairs(names) do
        values[i] = state[name] or false
      end
      answers[#answers + 1] = {job.id, job.lost_by or '', values}
    end
  end
  return answers
end
