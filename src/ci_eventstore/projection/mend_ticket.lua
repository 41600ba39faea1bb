-- Make a user's ticket in a queue what it has to be, if it is wrong: one atomic step.
--
-- Returns "right" (nothing had to be changed) or "mended".

-- Libraries: telling, standing, calls, tickets, queue, mending

must_be('stream', dispatch)
must_be('zset', backlog)
must_be('hash', tickets)
local ticket, waiting = ticket_of(tickets, user), jobs_of(backlog, user, 1)[1]
local is_good = is_waiting(dispatch, ticket)
if (is_good and waiting) or (not waiting and redis.call('HEXISTS', tickets, user) == 0) then
  return answer
end
mend('HDEL', tickets, user)
if waiting then
  redis.call('HSET', tickets, user, add_ticket(dispatch, tickets, user))
  tell(channel, 'ticket ' .. waiting)
elseif is_good then
  redis.call('XDEL', dispatch, ticket)
end
return answer
