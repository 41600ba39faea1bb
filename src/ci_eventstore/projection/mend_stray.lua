-- Remove a member from a sorted set in which its job has no place, if that is still so: one atomic step.
--
-- KEYS  1 sorted set, 2 the job's hash, 3 the job's stream
-- ARGV  1 member, 2 "1" if the job has a stream, as it was read; then names and values of the hash's fields that say where
--       the job belongs, as they were read, "" for those that aren't there
--
-- Returns "right" (it isn't there any more), "mended", or "changed" and changes nothing: what was read isn't true any more.

local index, hash, stream, member = KEYS[1], KEYS[2], KEYS[3], ARGV[1]

if redis.call('EXISTS', stream) ~= tonumber(ARGV[2]) then
  return 'changed'
end
for i = 3, #ARGV, 2 do
  if (redis.call('HGET', hash, ARGV[i]) or '') ~= ARGV[i + 1] then
    return 'changed'
  end
end
return redis.call('ZREM', index, member) == 1 and 'mended' or 'right'
