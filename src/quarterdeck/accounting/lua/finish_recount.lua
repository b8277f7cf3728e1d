-- Finishes a recount: adds what was settled before it began, trusts the budgets again and releases the lock.
-- KEYS rebuilding cold money*
-- ARGV token second (kind scope amount)*; `second` is when the recount began
-- Returns how many budgets are counted now.
--include period.lua
--include money.lua
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
local count = 0
for i = 3, #KEYS do
  local kind, scope, amount = tonumber(ARGV[i * 3 - 6]), ARGV[i * 3 - 5], tonumber(ARGV[i * 3 - 4])
  local state = redis.call('GET', KEYS[i])
  if state then
    local is_kind, period, spent, held, cold = unpack_money(state)
    if is_kind == kind and cold == RECOUNTING then -- COLD: lost and begun anew since, so it needs another recount
      -- A period that has begun since was counted from its first request on.
      if period == period_of(kind, ARGV[2]) then spent = spent + amount end
      write_money(KEYS[i], kind, period, spent, held, COUNTED)
      count = count + 1
    end
  end
  redis.call('SREM', KEYS[2], kind .. ' ' .. scope)
end
redis.call('DEL', KEYS[1])
return count
