-- Change entries of a list that still are what they were: one atomic step.
--
-- KEYS  1 list
-- ARGV  number of an entry, the entry as it was, as it is to be, by turns
--
-- Returns how many were changed.

local count = 0
for i = 1, #ARGV, 3 do
  if redis.call('LINDEX', KEYS[1], ARGV[i]) == ARGV[i + 1] then
    redis.call('LSET', KEYS[1], ARGV[i], ARGV[i + 2])
    count = count + 1
  end
end
return count
