-- Begins every script: nothing happens after the deadline, in milliseconds of the server's time, that comes as the last argument.
local time = redis.call('TIME')
local now_ms = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
if now_ms > tonumber(table.remove(ARGV)) then
  return redis.error_reply('EXPIRED the deadline of the call has passed')
end
