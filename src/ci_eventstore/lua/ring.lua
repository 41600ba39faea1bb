-- The ring holds the end of a log whose head is full: numbered fields, "bytes lines payload", and counters that say which there
-- are and what was left out before them. What is decided is saved at the end; the counters move before an old entry goes.

local function read_ring(ring)
  local found = redis.call('HMGET', ring, 'first', 'last', 'kept', 'lost_bytes', 'lost_lines')
  return {key = ring, first = whole(found[1]) or 1, last = whole(found[2]) or 0, kept = whole(found[3]) or 0,
    lost_bytes = whole(found[4]) or 0, lost_lines = whole(found[5]) or 0, new = {}, dropped = {}}
end

-- Returns an entry's bytes, lines and payload; 0, 0 and nothing if it can't be read.
local function ring_entry(ring, place)
  local entry = ring.new[place] or redis.call('HGET', ring.key, place) or ''
  local size, newlines, start = string.match(entry, '^(%d+) (%d+) ()')
  return tonumber(size or 0), tonumber(newlines or 0), start and string.sub(entry, start)
end

local function put_in_ring(ring, payload, size, newlines)
  ring.last, ring.kept = ring.last + 1, ring.kept + #payload + RING_ENTRY_BYTES
  ring.new[ring.last] = size .. ' ' .. newlines .. ' ' .. payload
  while ring.kept > RING_BYTES and ring.first < ring.last do
    local old_size, old_newlines, old = ring_entry(ring, ring.first)
    ring.dropped[#ring.dropped + 1] = ring.first
    ring.first, ring.kept = ring.first + 1, ring.kept - #(old or '') - RING_ENTRY_BYTES
    ring.lost_bytes, ring.lost_lines = ring.lost_bytes + old_size, ring.lost_lines + old_newlines
  end
end

-- Returns the error if anything could stop what is written of it.
local function unwritable_ring(over)
  if over.is_emptied or next(over.ring.new) then
    return unreadable('XLEN', over.stream) or forbidden('HDEL', over.ring.key, '') or forbidden('DEL', over.ring.key)
  end
end

-- Put the new entries after those that the counters know, before the counters move.
local function put_new(over)
  for place, entry in pairs(over.is_emptied and {} or over.ring.new) do
    over.is_put = true
    if place >= over.ring.first then
      redis.call('HSET', over.ring.key, place, entry)
    end
  end
end

-- Remove new entries that the counters don't know. Returns whether there may be any.
local function take_back(over)
  for place in pairs(over.is_put and over.ring.new or {}) do
    redis.pcall('HDEL', over.ring.key, place)
  end
  return over.is_put
end

local function save_ring(over)
  local ring = over.ring
  if not over.is_put then
    return
  end
  redis.call('HSET', ring.key, 'first', ring.first, 'last', ring.last, 'kept', ring.kept, 'lost_bytes', ring.lost_bytes,
    'lost_lines', ring.lost_lines)
  for _, place in ipairs(ring.dropped) do
    redis.call('HDEL', ring.key, place)
  end
  over.is_put = false
end

local function remove_ring(over)
  if over.is_emptied then
    redis.call('DEL', over.ring.key)
  end
end
