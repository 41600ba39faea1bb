-- For scripts that mend what is derived: each looks first, and answers "mended" if anything had to be changed, else "right".

local answer = 'right'

local function mend(...)
  answer = 'mended'
  return redis.call(...)
end

-- Nothing that was derived is of another type.
local function must_be(kind, ...)
  for _, key in ipairs({...}) do
    local found = redis.call('TYPE', key)['ok']
    if found ~= 'none' and found ~= kind then
      mend('DEL', key)
    end
  end
end

-- Whether a ticket is in the dispatch stream and nobody was handed it yet.
local function is_waiting(dispatch, ticket)
  local position, part = string.match(ticket or '', '^(%d+)%-(%d+)$')
  local last, last_part = string.match(last_ticket(dispatch) or '0-0', '^(%d+)%-(%d+)$')
  return position and is_before(last, last_part, position, part) and #redis.call('XRANGE', dispatch, ticket, ticket) == 1
end
