-- How an append writes what `recording.lua` has decided of one job.

-- Write the entries and the hash. How far that came is `added`: as many as there are records, or one if it is some of them; then
-- `is_saved`.
local function write_log(log, stream, hash, over, records)
  if over then
    over:put()
  end
  for i = 1, #log.entries, 2 do
    redis.call('XADD', stream, log.entries[i], 'e', log.entries[i + 1])
    log.added = i == #log.entries - 1 and records or 1
  end
  if over then
    over:save()
  end
  local last_entry = log.entries[#log.entries]
  redis.call('HSET', hash, 'position', log.position, 'part', log.part, 'bytes', log.bytes, 'lines', log.lines,
    'mark', last_entry and mark_of(last_entry) or log.mark_before, unpack(log.fields))
  log.is_saved = true
end

-- Returns how far a write came that was stopped, for `stopping.lua`.
local function reached_by(log, over, records)
  local is_taken_back = over and over:take_back()
  return {has_entries = log.added > 0, is_part = log.added < records or is_taken_back,
    is_nothing = log.added == 0 or is_taken_back and log.position == log.position_before}
end

-- Write what is due in the sparse index, and what is left to do of the ring.
local function finish_log(log, index, over)
  for _, entry in ipairs(log.index_entries) do
    redis.call('RPUSH', index, entry)
  end
  if over then
    over:finish()
  end
end

-- Followers are told the new entries while they are few and small, else only how far the stream goes.
local function tell_entries(log, stream)
  local told, told_bytes, payloads = log.before, 0, {}
  for i = 1, #log.entries, 2 do
    local place, payload = log.entries[i], log.entries[i + 1]
    told_bytes = told_bytes + #place + #payload
    told, payloads[#payloads + 1] = told_bytes <= TOLD_BYTES and told .. ' ' .. place .. ':' .. #payload, payload
  end
  if not told then
    tell_places(stream, log.before, string.format('%d-%d', log.position, log.part), log.mark_before)
  elseif payloads[1] then
    tell(stream, told .. '\n' .. table.concat(payloads) .. log.mark_before)
  end
end
