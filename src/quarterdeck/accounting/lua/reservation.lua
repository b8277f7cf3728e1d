-- The layout of a reservation: three doubles, `second tokens money` (when it was made and what it took), then the note
-- for the worker. An expired one that its gateway may still renew has a '!' before the note.
local HEAD = 24

local function pack_reservation(second, tokens, money, note)
  return struct.pack('<ddd', second, tokens, money) .. note
end

local function unpack_reservation(data)
  return struct.unpack('<ddd', data)
end

local function head_of(data)
  return string.sub(data, 1, HEAD)
end

local function note_of(data)
  return string.sub(data, HEAD + 1)
end
