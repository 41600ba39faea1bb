-- Offers of controllers to take the next job, in `create.lua`; it names the keys.

-- Whether the script's user may do what giving a job away takes. If not, nobody is given one.
local function may_give()
  return not (forbidden('ZPOPMAX', offers) or forbidden('XACK', dispatch, '', '0-0') or forbidden('XDEL', dispatch, '0-0')
    or forbidden('XREADGROUP', 'GROUP', '', '', 'STREAMS', dispatch, '>') or forbidden('HSET', offered, '', ''))
end

-- Whether a controller listens to its channel and may be told there.
local function listens(channel)
  local found = redis.pcall('PUBSUB', 'NUMSUB', channel)
  return not found.err and tonumber(found[2]) > 0 and not forbidden('PUBLISH', channel, '')
end

-- Returns the last offer of all whose controller listens, if it isn't too old: who made it, what it asked, milliseconds of its lease,
-- the time on the clock. Earlier ones are taken back, and those that have lost their record.
local function next_offer(channels)
  while may_give() do
    local controller, ends_at = unpack(redis.call('ZPOPMAX', offers))
    if not controller then
      return nil
    end
    local record = redis.call('HGET', offered, controller) or ''
    local question, session, lease_ms = string.match(record, '^((%w+)%-%d+) (%d+)')
    if lease_ms then
      local now = advance_clock(clock, lease_ms + 0)
      if ends_at + 0 <= now or redis.call('ZRANGEBYSCORE', leases, '-inf', now, 'LIMIT', 0, 1)[1] then
        -- All others are older; or a lost job comes first, for which they have to ask.
        redis.call('DEL', offers)
        return nil
      end
      if listens(channels .. session) then
        return {controller = controller, record = record, question = question, channel = channels .. session, now = now,
          lease_ms = lease_ms}
      end
    end
  end
  return nil
end

-- Note what an offer has brought. What earlier ones have is known to the controller, or it would have made none.
local function note_given(taker, token, id)
  redis.call('HSET', offered, taker.controller, string.match(taker.record, '^[^\n]+') .. '\n' .. token .. ' ' .. id)
end

-- Hand a ticket to a controller through the group. Others that are handed out by this are for nobody, as no user waits.
local function deliver(ticket, controller)
  repeat
    local command = {'XREADGROUP', 'GROUP', 'controllers', controller, 'COUNT', '100', 'STREAMS', dispatch, '>'}
    local found = redis.pcall(unpack(command))
    if found and found.err then
      -- The group is gone, and is made again from the beginning.
      last_ticket(dispatch)
      found = redis.call(unpack(command))
    end
    local entries = found and found[1][2] or {{ticket}}
    for _, entry in ipairs(entries) do
      if entry[1] ~= ticket then
        remove_ticket(dispatch, entry[1])
      end
    end
  until entries[#entries][1] == ticket
end
