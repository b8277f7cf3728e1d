-- Drops entries by their keys. KEYS index info bytes; ARGV[1] is the prefix of entry keys.
-- Returns how many of them had not expired, and the bytes that all of them took.
local function drop(keys)
  if #keys == 0 then return 0, 0 end
  local entries, bytes = {}, 0
  for i, info in ipairs(redis.call('HMGET', KEYS[2], unpack(keys))) do
    entries[i] = ARGV[1] .. keys[i]
    if info then bytes = bytes + string.match(info, '^%d+') end
  end
  redis.call('ZREM', KEYS[1], unpack(keys))
  redis.call('HDEL', KEYS[2], unpack(keys))
  redis.call('DECRBY', KEYS[3], bytes)
  return redis.call('DEL', unpack(entries)), bytes
end
