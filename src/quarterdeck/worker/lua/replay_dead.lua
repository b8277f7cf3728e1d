-- Moves dead entries back to their stream, without the reason. Returns how many.
-- KEYS dead stream
-- ARGV most
local count = 0
for _, entry in ipairs(redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', ARGV[1])) do
  local fields = {}
  for i = 1, #entry[2], 2 do
    if entry[2][i] ~= 'reason' and entry[2][i] ~= 'entry' then
      fields[#fields + 1] = entry[2][i]; fields[#fields + 1] = entry[2][i + 1]
    end
  end
  redis.call('XADD', KEYS[2], '*', unpack(fields))
  redis.call('XDEL', KEYS[1], entry[1])
  count = count + 1
end
return count
