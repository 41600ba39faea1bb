-- Tickets of a queue in one partition:
--
--   backlog   sorted set of all jobs that wait, "<user>\0<time of creation>\0<id>": each user's in that order
--   tickets   hash: for each user with waiting jobs, the one ticket that no controller has taken yet
--   dispatch  stream of tickets with a consumer group; a ticket stays pending with its controller while the job is claimed
--   offers    sorted set of controllers that have nothing to do and take the next job, by when the offer ends on the clock
--   offered   hash: what each controller asked last, "<session>-<number> <milliseconds of a lease> <when, on the clock>", then, on
--             a line of its own, the last job that its offers have brought, "<token of the claim> <job id>"

local function is_ticket(text)
  return text and string.find(text, '^%d+%-%d+$') ~= nil
end

local function add_ticket(dispatch, tickets, user)
  local ticket = redis.call('XADD', dispatch, 'NOMKSTREAM', '*', 'user', user)
  if not ticket then
    ticket = redis.call('XADD', dispatch, '*', 'user', user)
    redis.call('XGROUP', 'CREATE', dispatch, 'controllers', '0')
    -- Tickets that were lost with the stream count for nothing.
    redis.call('DEL', tickets)
  end
  return ticket
end

-- Returns the ticket of a user that nobody has taken yet; what can't be one is none.
local function ticket_of(tickets, user)
  local ticket = redis.call('HGET', tickets, user)
  return is_ticket(ticket) and ticket or nil
end

local function remove_ticket(dispatch, ticket)
  if is_ticket(ticket) and redis.call('EXISTS', dispatch) == 1 then
    redis.call('XACK', dispatch, 'controllers', ticket)
    redis.call('XDEL', dispatch, ticket)
  end
end

local function jobs_of(backlog, user, count)
  return redis.call('ZRANGEBYLEX', backlog, '[' .. user .. '\0', '(' .. user .. '\1', 'LIMIT', 0, count)
end

-- Returns the message for controllers if there is a new ticket.
local function enter_queue(dispatch, backlog, tickets, user, waiting)
  redis.call('ZADD', backlog, 0, waiting)
  if ticket_of(tickets, user) and redis.call('EXISTS', dispatch) == 1 then
    return nil
  end
  redis.call('HSET', tickets, user, add_ticket(dispatch, tickets, user))
  return 'ticket ' .. waiting
end

-- The id of the ticket that was handed out last. The group is made again if it is gone, from the beginning.
local function last_ticket(dispatch)
  if redis.call('EXISTS', dispatch) == 0 then
    return nil
  end
  for _, group in ipairs(redis.call('XINFO', 'GROUPS', dispatch)) do
    local fields = {}
    for i = 1, #group, 2 do
      fields[group[i]] = group[i + 1]
    end
    if fields['name'] == 'controllers' then
      return fields['last-delivered-id']
    end
  end
  redis.call('XGROUP', 'CREATE', dispatch, 'controllers', '0')
  return '0-0'
end
