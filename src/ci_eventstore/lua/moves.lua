-- What is written of many jobs together: the moves between listings of all jobs, under 0, and of each owner's, under its number.

local function note_move(moves, owner, member)
  for whose = 0, owner, math.max(owner, 1) do
    local one = moves[whose]
    if not one then
      one = {leaving = {}, joining = {}}
      moves[whose] = one
    end
    local joining = one.joining
    one.leaving[#one.leaving + 1], joining[#joining + 1], joining[#joining + 2] = member, '0', member
  end
end

local function carry_out(one, from, to)
  redis.call('ZREM', from, unpack(one.leaving))
  redis.call('ZADD', to, unpack(one.joining))
end

-- A command for all that a list has; none if it has nothing.
local function call_with(command, key, list)
  if list[1] then
    redis.call(command, key, unpack(list))
  end
end

-- Acknowledge tickets, and remove them.
local function remove_tickets(dispatch, list)
  if list[1] then
    redis.call('XACK', dispatch, 'controllers', unpack(list))
    redis.call('XDEL', dispatch, unpack(list))
  end
end

-- Send messages: channel, message, and so on. Nobody hears one that is refused.
local function tell_all(messages)
  for i = 1, #messages, 2 do
    redis.pcall('PUBLISH', messages[i], messages[i + 1])
  end
end
