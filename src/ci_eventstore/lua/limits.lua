-- What becomes of a log's lines that are over its budget: until the job ends, the newest of them are in its ring.

local function append_line(log, line)
  append_event(log, payload_of('log') .. '\217' .. string.char(#line) .. line, #line, 2)
end

local function note_truncation(log)
  append_fact(log, payload_of('truncating') .. '\128')
  log.truncated_at = log.position
  set_field(log, 'truncated_at', log.position)
end

-- Append a line, or put it in the ring once the log's head is full.
local function take_line(log, ring, payload, size, newlines, head_bytes)
  if log.truncated_at < 0 and log.bytes + size <= head_bytes then
    append_event(log, payload, size, newlines)
    return
  end
  if log.truncated_at < 0 then
    note_truncation(log)
  end
  put_in_ring(ring, payload, size, newlines)
end

-- Append what the ring holds: the job ends.
local function empty_ring(log, ring)
  if ring.lost_bytes > 0 then
    append_line(log, string.format('\n[%.0f bytes in %.0f lines are left out here]\n', ring.lost_bytes, ring.lost_lines))
  end
  for place = ring.first, ring.last do
    local size, newlines, payload = ring_entry(ring, place)
    if payload then
      append_event(log, payload, size, newlines)
    end
  end
  ring.is_emptied = true
end

-- Append that there was more than is kept after the job's end.
local function refuse_late(log)
  append_line(log, '\n[more was written after the job had ended: it is left out here]\n')
  note_truncation(log)
end
