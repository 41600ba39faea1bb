-- Returns how an id stands: "there" (it has a hash, whose field `log` is reserved for where its log lies), "unprojected" (a stream
-- without its hash: `rebuild` makes that, and nobody creates the job anew), or "missing". `events/standing.py` says the same.

local function standing_of(has_hash, stream)
  if has_hash then
    return 'there'
  end
  return redis.call('EXISTS', stream) == 1 and 'unprojected' or 'missing'
end
