-- Have a reader read a partition's facts for its group, unless another one does: one atomic step.
--
-- `groups.py` names its keys and arguments. The reader reads after the entry `after`, or after the group's acknowledged one if that is
-- "", or if the lease was another's, which it waits for unless `begins` is 2.
--
-- Returns {"held", milliseconds until the lease of another reader ends}; {"gone"}: there is no such group, and it isn't to begin;
-- or {"read", "1" if what came before may be lost to the group, entries as ids, texts and the marks of owners by turns, "-" for none}.

local kept, acknowledged, holder, ends, answer = redis.call('HGET', groups, group), nil, nil, nil, nil
if kept then
  acknowledged, holder, ends = string.match(kept, '^(%S+) (%S+) (%d+) %d+$')
elseif begins == 0 then
  return {'gone'}
end
local left = begins < 2 and holder and holder ~= '-' and holder ~= reader and ends - now_ms or 0
-- A lease that lasts longer than any is of a clock that was ahead.
if left > 0 and left <= LONGEST_LEASE_MS then
  return {'held', left}
end
if after == '' or holder ~= reader then
  after = acknowledged or '0-0'
end
if not acknowledged or limit > 0 and redis.call('XLEN', facts) == 0 then
  -- Facts are written from here on; to have something that can be acknowledged, too.
  redis.call('XADD', facts, '*', 'f', 'b-')
end
redis.call('HSET', groups, group, string.format('%s %s %d %d', acknowledged or '0-0', reader, now_ms + lease_ms, now_ms))
if limit == 0 then
  return {'read', '0', {}}
end
-- It begins with the one that was read last: if that is gone, others may be, too.
local found, entries = redis.call('XRANGE', facts, after, '+', 'COUNT', limit + 1), {}
local has_last = found[1] and found[1][1] == after
for place = has_last and 2 or 1, #found do
  local fields = found[place][2]
  entries[#entries + 1], entries[#entries + 2], entries[#entries + 3] = found[place][1], fields[2], fields[4] or '-'
end
return {'read', has_last and '0' or '1', entries}
