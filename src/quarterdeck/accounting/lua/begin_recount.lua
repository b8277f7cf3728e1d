-- Begins to recount budgets: they restart at 0 and count what is settled from now on; the worker adds what was before.
-- KEYS rebuilding stream money*
-- ARGV token kind*
-- Returns {second, id of the last stream entry settled before}, or {} where another worker holds the lock.
--include clock.lua
--include period.lua
--include money.lua
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return {} end
local second = now()
for i = 3, #KEYS do
  local kind, held = tonumber(ARGV[i - 1]), 0
  local state = redis.call('GET', KEYS[i])
  local current = period_of(kind, second)
  if state then
    local was_kind, period, _, was_held = unpack_money(state)
    -- A later period: the clock has stepped back, and its requests are in flight all the same.
    if was_kind ~= kind or period >= current then held = was_held end
  end
  write_money(KEYS[i], kind, current, 0, held, RECOUNTING)
end
local last = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)[1]
return {second, last and last[1] or '0-0'}
