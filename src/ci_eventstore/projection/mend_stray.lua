-- Remove a member from a sorted set in which its job has no place, if that is still so: one atomic step.
--
-- Returns "right" (it isn't there any more), "mended", or "changed" and changes nothing: what was read isn't true any more.

if redis.call('EXISTS', stream) ~= has_stream then
  return 'changed'
end
for i = 1, #seen do
  if (redis.call('HGET', hash, seen.name(i)) or '') ~= seen.value(i) then
    return 'changed'
  end
end
return redis.call('ZREM', listing, member) == 1 and 'mended' or 'right'
