-- A job's moves between listings. A script looks with `unlistable` whether anything can stop them.

-- Returns the error if a job can't be moved from some listings to others, or its id be one of the partition's.
local function unlistable(listing)
  return unreadable('ZCARD', listing.ids, unpack(listing.leaves)) or unreadable('ZCARD', unpack(listing.joins))
    or forbidden('ZADD', listing.ids, '0', '') or forbidden('ZREM', listing.ids, '')
end

-- Move it; the id of a new job becomes one of the partition's.
local function relist(listing, member, new_id)
  if new_id then
    redis.call('ZADD', listing.ids, 0, new_id)
  end
  for _, leaves in ipairs(listing.leaves) do
    redis.call('ZREM', leaves, member)
  end
  for _, joins in ipairs(listing.joins) do
    redis.call('ZADD', joins, 0, member)
  end
end
