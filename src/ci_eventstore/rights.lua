-- Check, without doing anything, which of some commands the caller's user may run.
--
-- `requirements.py` names its arguments.
--
-- Returns the numbers of those that it may not run, or that the server doesn't have. A server that can't say, as
-- `fakeredis`, refuses none.

local refused = {}
for i = 1, redis.acl_check_cmd and #commands or 0 do
  local parts = {}
  for part in string.gmatch(commands(i) .. '\n', '([^\n]*)\n') do
    parts[#parts + 1] = part
  end
  local is_known, is_allowed = pcall(redis.acl_check_cmd, unpack(parts))
  if not (is_known and is_allowed) then
    refused[#refused + 1] = i
  end
end
return refused
