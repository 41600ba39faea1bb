-- What an append answers that was stopped after its first write, and what its call is from then on.

-- `reached` says how far it came: `is_saved`, the hash is written; else `is_nothing`, as if there had been no call; or `is_part`,
-- a part is there, and a repeated call is told that it is lost; or all its entries are there, and a repeated call goes on.
-- `has_entries`: the stream is ahead of the hash.
local function answer_of_stopped(error, reached, position, stream, calls, token, last_call, used)
  error = type(error) == 'table' and error or {err = tostring(error)}
  if reached.is_saved then
    return {'ok', position, error.err}
  elseif reached.is_nothing and last_call then
    redis.pcall('HSET', calls, token, last_call)
  elseif reached.is_nothing then
    redis.pcall('HDEL', calls, token)
  elseif reached.is_part then
    redis.pcall('HSET', calls, token, '-1 0' .. used)
  end
  -- A first entry can be refused: its place is taken if the stream is ahead of the hash.
  return (reached.has_entries or string.find(error.err, ' ID ', 1, true)) and {'unprojected'} or failed(error, stream)
end
