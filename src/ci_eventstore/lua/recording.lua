-- What an append writes of one job, decided before the first write: entries, fields, and what is due in the sparse index.

-- Returns the log as it is, of the fields "version", "position", "part", "bytes", "lines" and "truncated_at" of its job's hash.
local function read_log(state, index)
  return {index = index, position = (state[2] or 0) + 0, part = (state[3] or 0) + 0, bytes = (state[4] or 0) + 0,
    lines = (state[5] or 0) + 0, truncated_at = (state[6] or -1) + 0, entries = {}, fields = {}, index_entries = {}, added = 0}
end

local function append_entry(log, payload)
  local entries = log.entries
  entries[#entries + 1], entries[#entries + 2] = string.format('%d-%d', log.position, log.part), payload
end

local function append_event(log, payload, size, newlines)
  log.position, log.part, log.bytes, log.lines = log.position + 1, 0, log.bytes + size, log.lines + newlines
  append_entry(log, payload)
  if log.position >= INDEX_EVENTS or log.bytes >= INDEX_BYTES then
    if not log.indexed_position then
      log.indexed_position, log.indexed_bytes, log.error = newest_indexed(log.index)
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

-- Write the entries. How far that came is `added`: as many as there are records, or one if it is some of them.
local function write_entries(log, stream, records)
  for i = 1, #log.entries, 2 do
    redis.call('XADD', stream, log.entries[i], 'e', log.entries[i + 1])
    log.added = i == #log.entries - 1 and records or 1
  end
end

local function save_log(log, hash, mark_before)
  local last_entry = log.entries[#log.entries]
  redis.call('HSET', hash, 'position', log.position, 'part', log.part, 'bytes', log.bytes, 'lines', log.lines,
    'mark', last_entry and mark_of(last_entry) or mark_before, unpack(log.fields))
  log.is_saved = true
end

-- Followers are told the new entries while they are few and small, else only how far the stream goes.
local function tell_entries(log, stream, before, mark_before)
  local told, told_bytes, payloads = before, 0, {}
  for i = 1, #log.entries, 2 do
    local place, payload = log.entries[i], log.entries[i + 1]
    told_bytes = told_bytes + #place + #payload
    told, payloads[#payloads + 1] = told_bytes <= TOLD_BYTES and told .. ' ' .. place .. ':' .. #payload, payload
  end
  if not told then
    tell_places(stream, before, string.format('%d-%d', log.position, log.part), mark_before)
  elseif payloads[1] then
    tell(stream, told .. '\n' .. table.concat(payloads) .. mark_before)
  end
end
