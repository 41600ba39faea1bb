-- Note how far a group has read a partition's facts, and remove what every group that is live has read: one atomic step.
--
-- `groups.py` names its keys and arguments. `entry` is "" if there is nothing to note; `lease_ms` is 0 if the reader reads no more.
--
-- Returns 1, or 0 and changes nothing: it isn't this reader who reads for the group.

-- Libraries: calls

local acknowledged, holder = string.match(redis.call('HGET', groups, group) or '', '^(%S+) (%S+) %d+ %d+$')
if holder ~= reader then
  return 0
end
local position, part = string.match(acknowledged, '^(%d+)-(%d+)$')
local new_position, new_part = string.match(entry, '^(%d+)-(%d+)$')
-- After a gap the entries may be others, of a clock that is behind.
if new_position and (has_gap == 1 or is_before(position, part, new_position, new_part)) then
  acknowledged = entry
end
redis.call('HSET', groups, group, string.format('%s %s %d %d', acknowledged, lease_ms > 0 and reader or '-', now_ms + lease_ms, now_ms))
if lease_ms == 0 then
  redis.pcall('PUBLISH', facts, 'free')
end
if entry ~= '' then
  local all, slowest, slowest_part, first = redis.call('HGETALL', groups), nil, nil, nil
  for i = 2, #all, 2 do
    local read, looked = string.match(all[i], '^(%S+) %S+ %d+ (%d+)$')
    if read and looked + LIVE_MS > now_ms then
      local its, its_part = string.match(read, '^(%d+)-(%d+)$')
      if not slowest or is_before(its, its_part, slowest, slowest_part) then
        slowest, slowest_part, first = its, its_part, read
      end
    end
  end
  redis.call('XTRIM', facts, 'MINID', '~', first)
end
return 1
