-- Payloads of entries that scripts make themselves, as msgpack. `struct.pack` would make numbers, but `fakeredis` doesn't know it.

-- The beginning: an array of four, of schema version 1, of that type and the time that it is now.
local function payload_of(kind)
  local seconds, time = math.floor(now_ms / 1000), ''
  for _ = 1, 4 do
    time = string.char(seconds % 256) .. time
    seconds = math.floor(seconds / 256)
  end
  return '\148\1' .. string.char(160 + #kind) .. kind .. '\214\255' .. time
end

-- A text, and a number below 2^32.
local function pack_text(text)
  return string.char(218, math.floor(#text / 256), #text % 256) .. text
end

local function pack_number(number)
  local high, low = math.floor(number / 65536), number % 65536
  return string.char(206, math.floor(high / 256), high % 256, math.floor(low / 256), low % 256)
end

-- Returns a function that returns the payload of a controller's `claimed` fact, for jobs that it is given at one time.
local function claimed_payloads(packed_time, controller)
  local before_epoch = '\148\1\167claimed' .. packed_time .. '\133' .. pack_text('epoch')
  local before_attempts = pack_text('attempts')
  local before_claim = pack_text('controller') .. pack_text(controller) .. pack_text('claim')
  local before_ticket = pack_text('ticket')
  local packed_epoch, packed_attempts, head
  return function(epoch, attempts, claim, ticket)
    if epoch ~= packed_epoch or attempts ~= packed_attempts then
      packed_epoch, packed_attempts = epoch, attempts
      head = before_epoch .. pack_number(epoch) .. before_attempts .. pack_number(attempts) .. before_claim
    end
    return head .. pack_text(claim) .. before_ticket .. pack_text(ticket)
  end
end
