-- Give members of a sorted set other names, if they are there still: one atomic step.
--
-- KEYS  1 sorted set
-- ARGV  a member and its new name, by turns
--
-- Returns how many were given theirs.

local count = 0
for i = 1, #ARGV, 2 do
  if redis.call('ZREM', KEYS[1], ARGV[i]) == 1 then
    redis.call('ZADD', KEYS[1], 0, ARGV[i + 1])
    count = count + 1
  end
end
return count
