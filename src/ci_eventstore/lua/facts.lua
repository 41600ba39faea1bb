-- Facts of all jobs: docs/format.md, "Facts". A script adds its facts before its first write, so that a refusal refuses the whole call;
-- then it makes the change, and takes the facts back if that is refused, too:
--
--     local told, refused = add_facts(facts, 'cq sr', id)
--
-- `refused` is the error: return it, nothing was changed. If what they tell is refused later on: `take_back(facts, told)`. A change of
-- several jobs, some of which may be left out, is written by `tell_and_write`. They need the library `standing`.

-- How many entries of a partition's facts are kept at most, about: 3.5 MB of small ids.
local FACTS_KEPT = '100000'

-- Add an entry, perhaps with other fields. Returns its id, false if no group reads facts; or nothing, and the server's error. Readers are
-- woken when the script has ended. To look each time for what is too old would cost a tenth more.
local function add_fact(facts, text, ...)
  local entry
  if now_ms % 16 == 0 then
    entry = redis.pcall('XADD', facts, 'NOMKSTREAM', 'MAXLEN', '~', FACTS_KEPT, '*', 'f', text, ...)
  else
    entry = redis.pcall('XADD', facts, 'NOMKSTREAM', '*', 'f', text, ...)
  end
  if type(entry) == 'table' then
    return nil, entry
  elseif entry then
    redis.pcall('PUBLISH', facts, '')
  end
  return entry
end

-- Remove facts of what hasn't happened.
local function take_back(facts, told)
  for _, entry in ipairs(told) do
    redis.pcall('XDEL', facts, entry)
  end
end

-- Add facts of one job, or of several whose ids newlines join: each is its letter and that of the status, blanks join them. Returns their
-- entries; none if no group reads facts; or nothing, and the error.
local function add_facts(facts, whats, ids, ...)
  local told = {}
  for what in string.gmatch(whats, '%a%a') do
    local entry, refused = add_fact(facts, what .. ids, ...)
    if refused then
      take_back(facts, told)
      return nil, failed(refused, facts)
    end
    told[#told + 1] = entry or nil
  end
  return told
end

-- Tell that a job was created to wait, and that it was given to a controller at once, if it was: `told` gets the entries. Returns the
-- server's error.
local function tell_creation(facts, id, is_given, told)
  local refused
  told[1], refused = add_fact(facts, 'cq' .. id)
  if is_given and not refused then
    told[2], refused = add_fact(facts, 'sr' .. id)
  end
  return refused
end

-- Tell a fact of the jobs of a list, then call `write`, which puts into the list `done` those that it has come to. Returns the error of
-- either. If they are fewer, the right fact comes before the wrong one goes: one may be told twice, but is never lost.
local function tell_and_write(facts, what, list, done, write)
  -- To look costs less than to add nothing.
  local has_readers = list[1] and redis.call('EXISTS', facts) == 1
  local told, refused = add_facts(facts, has_readers and what or '', table.concat(list, '\n'))
  if refused then
    return refused
  end
  local error = attempt(write)
  if told[1] and #done < #list and (not done[1] or add_facts(facts, what, table.concat(done, '\n'))) then
    take_back(facts, told)
  end
  return error
end
