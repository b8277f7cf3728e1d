-- Returns ids and notes of requests whose gateway let the deadline pass.
-- KEYS reservations deadlines
-- ARGV most grace_ms longest_ms
-- A reservation found expired for the first time is only marked ('!'), and its gateway has grace_ms to renew it: Redis
-- may have been away. No lease is longer than longest_ms: a deadline beyond it was set by a clock that was ahead.
--include clock.lua
--include reservation.lua
local _, now_ms = now()
local latest = now_ms + ARGV[3]
for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '(' .. latest, '+inf', 'LIMIT', 0, tonumber(ARGV[1]))) do
  redis.call('ZADD', KEYS[2], latest, id)
end
local ids = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now_ms, 'LIMIT', 0, tonumber(ARGV[1]))
local found = {}
for _, id in ipairs(ids) do
  local was = redis.call('HGET', KEYS[1], id)
  if not was then
    redis.call('ZREM', KEYS[2], id)
  else
    local note = note_of(was)
    local is_marked = string.sub(note, 1, 1) == '!'
    if is_marked or tonumber(ARGV[2]) == 0 then
      found[#found + 1], found[#found + 2] = id, is_marked and string.sub(note, 2) or note
    else
      redis.call('HSET', KEYS[1], id, head_of(was) .. '!' .. note)
      redis.call('ZADD', KEYS[2], now_ms + ARGV[2], id)
    end
  end
end
return found
