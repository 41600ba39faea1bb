-- Add entries to what a copy has brought of a job so far: one atomic step, which may be repeated.
--
-- `copied_stores.py` names its keys and arguments.
--
-- Returns "staged"; or changes nothing and returns "changed": what came before isn't there any more.

local last = redis.call('XREVRANGE', staged, '+', '-', 'COUNT', 1)
local at = last[1] and last[1][1] or ''
if at ~= entries.id(#entries) then
  if at ~= before then
    return 'changed'
  end
  for i = 1, #entries do
    redis.call('XADD', staged, entries.id(i), 'e', entries.payload(i))
  end
end
redis.call('PEXPIRE', staged, STAGED_MS)
return 'staged'
