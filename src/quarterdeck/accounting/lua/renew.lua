-- Renews reservations and their notes; those that were settled meanwhile are left out.
-- KEYS reservations deadlines
-- ARGV lease_ms (id note)*
--include clock.lua
--include reservation.lua
local _, now_ms = now()
local deadline = now_ms + ARGV[1]
for i = 2, #ARGV, 2 do
  local was = redis.call('HGET', KEYS[1], ARGV[i])
  if was then
    redis.call('HSET', KEYS[1], ARGV[i], head_of(was) .. ARGV[i + 1])
    redis.call('ZADD', KEYS[2], deadline, ARGV[i])
  end
end
return #ARGV
