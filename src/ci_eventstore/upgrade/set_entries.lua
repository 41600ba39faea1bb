-- Change entries of a list that still are what they were: one atomic step.
--
-- `conversions.py` names its key and arguments.
--
-- Returns how many were changed.

local changed = 0
for i = 1, #entries do
  local place = entries.place(i)
  if redis.call('LINDEX', key, place) == entries.old(i) then
    redis.call('LSET', key, place, entries.new(i))
    changed = changed + 1
  end
end
return changed
