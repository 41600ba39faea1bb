-- Returns how an id stands: "there" (it has a hash, whose field `log` says what of its log was sealed), "gone" (there is a tombstone,
-- for scripts that know the partition's), "unprojected" (a stream without its hash: `rebuild` makes that, and nobody creates the job
-- anew), or "missing". `events/log_source.py` says the same.

local function standing_of(has_hash, stream, gone, id)
  if has_hash then
    return 'there'
  elseif gone and redis.call('HEXISTS', gone, id) == 1 then
    return 'gone'
  end
  return redis.call('EXISTS', stream) == 1 and 'unprojected' or 'missing'
end

-- Returns what a write is answered that a job doesn't allow as it is: `expected` is "new", "any", or the version that the write was
-- decided on, `claim` the one that it is made under, "*" if it needs none though there is one. Nothing if it may go on.
local function refusal(version, held, stream, expected, claim, gone, id)
  local standing = (expected == 'new' or not version) and standing_of(version, stream, gone, id)
  if standing and (expected ~= 'new' or standing == 'gone') then
    return {standing}
  elseif standing and standing ~= 'missing' then
    return {'exists'}
  elseif not standing and expected ~= 'any' and expected ~= version then
    return {'conflict'}
  end
  return claim ~= '*' and claim ~= (held or '') and {claim == '' and 'claimed' or 'fenced'} or nil
end
