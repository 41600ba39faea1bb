-- Check, without doing anything, which of some commands the caller's user may run.
--
-- ARGV  for each command: how many parts it has, then its parts
--
-- Returns the numbers of those that it may not run, or that the server doesn't have. A server that can't say, as
-- `fakeredis`, refuses none.

local refused, number, start = {}, 0, 1
while redis.acl_check_cmd and start < #ARGV do
  local last = start + tonumber(ARGV[start])
  number = number + 1
  local is_known, is_allowed = pcall(redis.acl_check_cmd, unpack(ARGV, start + 1, last))
  if not (is_known and is_allowed) then
    refused[#refused + 1] = number
  end
  start = last + 1
end
return refused
