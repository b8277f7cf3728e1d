-- Stores entries of one model, and drops those that expire first where there is no room.
-- KEYS index info bytes
-- ARGV prefix ttl_ms max_bytes model overhead_bytes now_ms (key entry)*
-- Returns for each entry 1 (stored) or 0 (no room).
--include drop.lua
local most, overhead, now_ms = tonumber(ARGV[3]), tonumber(ARGV[5]), ARGV[6]
local function keep(key, entry)
  local size = #entry + overhead
  if size > most then return 0 end
  local held, _, freed = redis.call('INCRBY', KEYS[3], size)
  if held > most or held % 65536 < size then -- no room, or 64 KiB more than at the last sweep
    _, freed = drop(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now_ms, 'LIMIT', 0, 200))
    held = held - freed
  end
  -- Bounded, as a script blocks Redis: an entry that would displace more than this is not worth it.
  for _ = 1, 10 do
    if held <= most then break end
    -- Several at once is cheaper; at most a 64th, because they could still be hit.
    local count = math.min(100, 1 + math.floor(redis.call('ZCARD', KEYS[1]) / 64))
    local first = redis.call('ZRANGE', KEYS[1], 0, count - 1)
    if #first == 0 then redis.call('SET', KEYS[3], size) held = size break end
    _, freed = drop(first)
    held = held - freed
  end
  if held > most then
    redis.call('DECRBY', KEYS[3], size)
    drop({key})
    return 0
  end
  redis.call('SET', ARGV[1] .. key, entry, 'PX', ARGV[2])
  if redis.call('ZADD', KEYS[1], now_ms + ARGV[2], key) == 0 then
    local info = redis.call('HGET', KEYS[2], key)
    if info then redis.call('DECRBY', KEYS[3], string.match(info, '^%d+')) end
  end
  redis.call('HSET', KEYS[2], key, size .. ' ' .. ARGV[4])
  return 1
end
local kept = {}
for i = 7, #ARGV, 2 do kept[#kept + 1] = keep(ARGV[i], ARGV[i + 1]) end
return kept
