-- A job's moves in its queue. A script looks with `unready` whether anything can stop them.

-- Returns the error if these steps ("drop" a lease, "leave", "enter") can't be done.
local function unready(steps, dispatch, backlog, tickets, leases)
  local error = unreadable('XLEN', dispatch) or unreadable('ZCARD', backlog, leases) or unreadable('HLEN', tickets)
  if not error and (steps.drop or steps.leave) then
    error = forbidden('ZREM', leases, '') or forbidden('XACK', dispatch, '', '0-0') or forbidden('XDEL', dispatch, '0-0')
      or forbidden('HDEL', tickets, '')
  end
  if not error and steps.enter then
    error = forbidden('ZADD', backlog, '0', '') or forbidden('HSET', tickets, '', '') or forbidden('XADD', dispatch, '*', '', '')
      or redis.call('EXISTS', dispatch) == 0 and (forbidden('XGROUP', 'CREATE', dispatch, '', '0') or forbidden('DEL', tickets))
  end
  return error or nil
end

local function leave_queue(dispatch, backlog, tickets, user, waiting)
  redis.call('ZREM', backlog, waiting)
  local ticket = redis.call('HGET', tickets, user)
  if ticket and #jobs_of(backlog, user, 1) == 0 then
    redis.call('HDEL', tickets, user)
    remove_ticket(dispatch, ticket)
  end
end

local function drop_lease(dispatch, leases, job_id, ticket)
  redis.call('ZREM', leases, job_id)
  remove_ticket(dispatch, ticket)
end
