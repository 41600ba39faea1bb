-- Begins every script: nothing happens after the deadline, in milliseconds of the server's time, that comes as the last argument.
local time, last = redis.call('TIME'), #ARGV
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
if now_ms > ARGV[last] + 0 then
  return redis.error_reply('EXPIRED the deadline of the call has passed')
end
ARGV[last] = nil
