-- What an append writes of one job, decided before the first write: entries, fields, and what is due in the sparse index.
-- `writing.lua` writes it.

-- Returns the log as it is, of the fields "version", "position", "part", "bytes", "lines", "truncated_at", "end_position", "claim",
-- "mark", "end_bytes" and "log" of its job's hash; nothing if one of them can't be read. A packed record doesn't say where log and
-- job ended if that follows from the rest; once the log goes on, it does.
local function read_log(state, is_new)
  local none, is_sealed, last_position, last_part = is_new and '0' or nil, state[11], end_of_log(state[2], state[3], state[11])
  local end_position, end_bytes = state[7] or is_sealed and last_position, state[10] or is_sealed and state[4]
  if not are_digits(last_position or none, last_part or none, state[4] or none, state[5] or none, state[6] or '0')
    or end_position and not are_digits(end_position, end_bytes, '0', '0', '0') then
    return nil
  end
  local position, part = (last_position or 0) + 0, (last_part or 0) + 0
  return {position = position, part = part, bytes = (state[4] or 0) + 0, lines = (state[5] or 0) + 0,
    truncated_at = tonumber(state[6]), end_position = tonumber(end_position), end_bytes = tonumber(end_bytes),
    position_before = position, before = string.format('%d-%d', position, part), mark_before = state[9] or '', entries = {},
    fields = is_sealed and {'end_position', end_position, 'end_bytes', end_bytes} or {}, index_entries = {}, added = 0}
end

-- Whether the job has ended and this is more late output than is taken.
local function is_enough(log, added_bytes)
  return log.end_position and added_bytes > 0 and log.bytes - log.end_bytes + added_bytes > LATE_BYTES
end

local function append_entry(log, payload)
  local entries = log.entries
  entries[#entries + 1], entries[#entries + 2] = string.format('%d-%d', log.position, log.part), payload
end

local function append_event(log, index, payload, size, newlines)
  log.position, log.part, log.bytes, log.lines = log.position + 1, 0, log.bytes + size, log.lines + newlines
  append_entry(log, payload)
  if log.position >= INDEX_EVENTS or log.bytes >= INDEX_BYTES then
    if not log.indexed_position then
      log.indexed_position, log.indexed_bytes, log.error = newest_indexed(index)
    end
    if log.position - log.indexed_position >= INDEX_EVENTS or log.bytes - log.indexed_bytes >= INDEX_BYTES then
      log.indexed_position, log.indexed_bytes = log.position, log.bytes
      log.index_entries[#log.index_entries + 1] = index_entry_of(log.position, log.lines, log.bytes, payload)
    end
  end
end

local function append_fact(log, payload)
  log.part = log.part + 1
  append_entry(log, payload)
end

local function set_field(log, name, value)
  log.fields[#log.fields + 1], log.fields[#log.fields + 2] = name, value
end

-- Decide on one record, of a kind's letter; `over` has what is over the log's budget, if anything is. The last one of a job that
-- ends comes after what the ring holds.
local function append_record(log, index, over, kind, payload, size, newlines, is_end)
  if is_end and over then
    over:empty()
  end
  if kind == FACT then
    append_fact(log, payload)
  elseif kind == LOG and over then
    over:take(payload, size, newlines)
  else
    append_event(log, index, payload, size, newlines)
  end
  if is_end then
    set_field(log, 'end_position', log.position)
    set_field(log, 'end_bytes', log.bytes)
  end
end
