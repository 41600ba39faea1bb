-- What the record of a sealed job says of its log: its field `log` refers to segments, "<first place>,<last place>,<bytes>,<root>" each,
-- and ",a" if it lies in the archive, joined by blanks.

-- Returns position and part at which a log ends, of these fields of its job's hash: a packed record has neither if that is where
-- its last segment ends.
local function end_of_log(position, part, log)
  if position or not log then
    return position, part
  end
  return string.match(log, ',(%d+)%-(%d+),%d+,%x+,?a?$')
end
