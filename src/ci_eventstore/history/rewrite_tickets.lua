-- Write a queue's tickets anew, each under its id and pending where it was: a stream keeps the bytes of entries that were deleted from it
-- next to others.
--
-- `erasing.py` names its keys and arguments.
--
-- Returns "rewritten", or "nothing": there are no tickets, or it is no real server, as `fakeredis`, which keeps no such bytes.

-- Libraries: standing

local entries = redis.pcall('XRANGE', dispatch, '-', '+')
if entries.err then
  return failed(entries, dispatch)
elseif #entries == 0 or not redis.acl_check_cmd then
  return 'nothing'
end
local error = forbidden('DEL', dispatch) or forbidden('XADD', dispatch, '*', '', '') or forbidden('XSETID', dispatch, '0-1')
  or forbidden('XGROUP', 'CREATE', dispatch, '', '0') or forbidden('XCLAIM', dispatch, '', '', '0', '0-0')
  or forbidden('XPENDING', dispatch, '') or forbidden('XINFO', 'STREAM', dispatch) or forbidden('XINFO', 'GROUPS', dispatch)
if error then
  return error
end

-- Returns what `XINFO` says of something, by name.
local function named_fields(list)
  local fields = {}
  for i = 1, #list, 2 do
    fields[list[i]] = list[i + 1]
  end
  return fields
end

local stream, groups = named_fields(redis.call('XINFO', 'STREAM', dispatch)), {}
for _, group in ipairs(redis.call('XINFO', 'GROUPS', dispatch)) do
  local fields = named_fields(group)
  local pending = fields['pending'] > 0 and redis.call('XPENDING', dispatch, fields['name'], '-', '+', fields['pending']) or {}
  groups[#groups + 1] = {name = fields['name'], delivered = fields['last-delivered-id'], pending = pending}
end
return attempt(function()
  redis.call('DEL', dispatch)
  for _, entry in ipairs(entries) do
    redis.call('XADD', dispatch, entry[1], unpack(entry[2]))
  end
  redis.call('XSETID', dispatch, stream['last-generated-id'])
  for _, group in ipairs(groups) do
    redis.call('XGROUP', 'CREATE', dispatch, group.name, group.delivered)
    for _, one in ipairs(group.pending) do
      redis.call('XCLAIM', dispatch, group.name, one[2], '0', one[1], 'IDLE', one[3], 'RETRYCOUNT', one[4], 'FORCE', 'JUSTID')
    end
  end
end) or 'rewritten'
