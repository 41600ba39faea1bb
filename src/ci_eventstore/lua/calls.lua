-- Calls are recognised by a token and a number, and kept as a text: the number, a blank, what the call has answered.

-- Returns what a call is beside the last one of its token, and what that answered:
-- "first" (none is known), "next", "repeated", "late" (a later one was here), "ahead" (one between is missing).
local function recall(kept, number)
  local last, answer = string.match(kept or '', '^(-?%d+) ?(.*)$')
  last = tonumber(last)
  if not last then
    return 'first'
  end
  if last >= number then
    return last == number and 'repeated' or 'late', answer
  end
  return last + 1 == number and 'next' or 'ahead', answer
end

local function remember(number, answer)
  return string.format('%d %s', number, answer)
end

-- A call "<session>-<number>" is one of its session alone: returns what is kept of that session, and the number.
local function of_session(kept, call)
  local session, number = string.match(call, '^(%w+)%-(%d+)$')
  local same, rest = string.match(kept or '', '^(%w+)%-(.*)$')
  return same == session and rest or nil, tonumber(number)
end

-- Whether one place in a stream comes before another.
local function is_before(position, part, other, other_part)
  position, other = tonumber(position or 0) or 0, tonumber(other or 0) or 0
  return position < other or position == other and (tonumber(part or 0) or 0) < (tonumber(other_part or 0) or 0)
end
