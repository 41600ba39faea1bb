-- A job's moves in its queue. A script looks with `unready` whether anything can stop them.

-- Returns the error if these steps ("drop" a lease, "leave", "enter", "cancel"; joined by spaces) can't be done. The place of the job
-- has the queue's keys, and is given the steps.
local function unready(place, steps)
  for step in string.gmatch(steps, '%a+') do
    place[step] = true
  end
  local dispatch, tickets, leases = place.dispatch, place.tickets, place.leases
  local error = unreadable('XLEN', dispatch) or unreadable('ZCARD', place.backlog, leases) or unreadable('HLEN', tickets)
  if not error and (place.drop or place.leave) then
    error = forbidden('ZREM', leases, '') or forbidden('XACK', dispatch, '', '0-0') or forbidden('XDEL', dispatch, '0-0')
      or forbidden('HDEL', tickets, '')
  end
  if not error and place.enter then
    error = forbidden('ZADD', place.backlog, '0', '') or forbidden('HSET', tickets, '', '') or forbidden('XADD', dispatch, '*', '', '')
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

-- Do the steps. What controllers are to be told of them is added to the messages.
local function move(place, id, user, waiting, ticket, messages)
  if place.cancel then
    messages[1] = 'cancel ' .. id
  end
  if place.drop then
    drop_lease(place.dispatch, place.leases, id, ticket)
  end
  if place.leave then
    leave_queue(place.dispatch, place.backlog, place.tickets, user, waiting)
  end
  if place.enter then
    messages[#messages + 1] = enter_queue(place.dispatch, place.backlog, place.tickets, user, waiting)
  end
end
