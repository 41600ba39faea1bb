-- What a `claimed` fact is in its job's stream.

-- As msgpack: a text, a number below 2^32. `struct.pack` would do it, but `fakeredis` doesn't know that.
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
  return function(epoch, attempts, claim, ticket)
    return before_epoch .. pack_number(epoch) .. before_attempts .. pack_number(attempts) .. before_claim .. pack_text(claim) ..
      before_ticket .. pack_text(ticket)
  end
end
