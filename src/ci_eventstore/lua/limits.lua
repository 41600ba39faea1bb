-- What becomes of a log's lines that are over its budget: until the job ends, the newest of them are in its ring.

local function append_line(log, index, line)
  append_event(log, index, payload_of('log') .. '\217' .. string.char(#line) .. line, #line, 2)
end

local function note_truncation(log)
  append_fact(log, payload_of('truncating') .. '\128')
  log.truncated_at = log.position
  set_field(log, 'truncated_at', log.position)
end

-- Append that there was more than is kept after the job's end. Returns false if that is there already.
local function refuse_late(log, index)
  if log.truncated_at and log.truncated_at >= log.end_position then
    return false
  end
  append_line(log, index, '\n[more was written after the job had ended: it is left out here]\n')
  note_truncation(log)
  return true
end

-- Append a line, or put it in the ring once the log's head is full.
local function take_line(over, payload, size, newlines)
  local log = over.log
  if over.is_emptied or not log.truncated_at and log.bytes + size <= over.head_bytes then
    append_event(log, over.index, payload, size, newlines)
    return
  end
  if not log.truncated_at then
    note_truncation(log)
  end
  put_in_ring(over.ring, payload, size, newlines)
end

-- Append what the ring holds: the job ends.
local function empty_ring(over)
  local ring = over.ring
  if ring.lost_bytes > 0 then
    local line = string.format('\n[%.0f bytes in %.0f lines are left out here]\n', ring.lost_bytes, ring.lost_lines)
    append_line(over.log, over.index, line)
  end
  for place = ring.first, ring.last do
    local size, newlines, payload = ring_entry(ring, place)
    if payload then
      append_event(over.log, over.index, payload, size, newlines)
    end
  end
  over.is_emptied = true
end

-- Returns what an append does with such lines, or the error if the ring can't be read. Of its functions `take` and `empty` decide,
-- then `refusal` returns the error if anything could stop what follows; `put`, `save` and `finish` write, `take_back` undoes it.
local function over_budget(log, index, ring_key, stream, head_bytes)
  local error = unreadable('HLEN', ring_key)
  local ring = not error and read_ring(ring_key)
  return ring and {log = log, index = index, ring = ring, stream = stream, head_bytes = head_bytes, take = take_line,
    empty = empty_ring, refusal = unwritable_ring, put = put_new, save = save_ring, finish = remove_ring, take_back = take_back},
    error
end
