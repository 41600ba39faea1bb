-- Forget a group of a partition; the last one takes the facts with it: one atomic step.
--
-- `groups.py` names its keys and arguments. Returns 1, or 0 if there was no such group.

local dropped = redis.call('HDEL', groups, group)
if redis.call('HLEN', groups) == 0 then
  redis.call('DEL', facts)
end
redis.pcall('PUBLISH', facts, 'free')
return dropped
