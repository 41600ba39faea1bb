-- Give members of a sorted set other names, if they are there still: one atomic step.
--
-- `conversions.py` names its key and arguments.
--
-- Returns how many were given theirs.

local moved = 0
for i = 1, #members do
  if redis.call('ZREM', key, members.old(i)) == 1 then
    redis.call('ZADD', key, 0, members.new(i))
    moved = moved + 1
  end
end
return moved
