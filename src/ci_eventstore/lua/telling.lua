-- Marks of entries, and messages to followers and controllers.
--
-- Messages come after all writes, and one that is refused is heard by nobody: it stops no script. Followers and
-- controllers look for themselves, too.

-- The mark of an entry: eight hex digits of its payload's SHA-1; "" on a server that has none, as `fakeredis`.
local function mark_of(payload)
  return redis.sha1hex and string.sub(redis.sha1hex(payload), 1, 8) or ''
end

-- Returns how many have heard it.
local function tell(channel, message)
  local heard = redis.pcall('PUBLISH', channel, message)
  return type(heard) == 'number' and heard or 0
end

-- A job's followers are told of new entries on its stream's channel: where the stream ended before and "<id>:<size>" of each
-- entry, joined by spaces; on the next line their payloads together, and the mark of the entry before them, "" if none is known.

-- Notify them only of where the stream ended before and ends now.
local function tell_places(stream, before, after, mark)
  tell(stream, before .. ' ' .. after .. (mark ~= '' and ' ' .. mark or ''))
end
