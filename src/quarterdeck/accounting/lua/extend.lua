-- Holds more money for a request in flight, which goes to a dearer model than the one it was admitted for.
-- KEYS reservations cold (money)*
-- ARGV id plan money; the plan is that of reserve.lua, `money` what is to be held in all
-- Returns {word scope left held}: 'ok'; 'money' or 'cold' where a budget denies it; 'gone' where there is no reservation.
--include clock.lua
--include period.lua
--include money.lua
--include reservation.lua
local was = redis.call('HGET', KEYS[1], ARGV[1])
if not was then return {'gone', 0, 0, 0} end
local second, tokens, money = unpack_reservation(was)
local plan, wanted = ARGV[2], tonumber(ARGV[3])
local more = wanted - money
if more <= 0 then return {'ok', 0, 0, 0} end
local states = {}
for i = 1, #plan / 48 do
  local _, _, _, kind, amount, deny = struct.unpack('<dddddd', plan, i * 48 - 47)
  if kind > 0 then
    local key = KEYS[2 + i]
    local state = redis.call('GET', key)
    local current = period_of(kind, second)
    local was_kind, period, spent, held, cold
    if state then was_kind, period, spent, held, cold = unpack_money(state) end
    if was_kind ~= kind then period, spent, held, cold = current, 0, held or 0, COLD
    elseif period < current then period, spent, held = current, 0, 0 end
    if period > current then -- the request belongs to a period that is over: it is counted in none, within this one
      if deny == 1 and cold == COUNTED and spent + held + wanted > amount then
        return {'money', i, math.floor(math.max(0, amount - spent - held)), math.ceil(held)}
      end
    else
      if cold > COUNTED then
        redis.call('SADD', KEYS[2], kind .. ' ' .. string.match(key, '}:(.*)$'))
        if deny == 1 then return {'cold', i, 0, 0} end
      elseif deny == 1 and spent + held + more > amount then
        local unspent = math.max(0, amount - spent)
        local in_flight = math.min(held, unspent)
        return {'money', i, math.floor(unspent - in_flight), math.ceil(in_flight)}
      end
      states[#states + 1] = {key, kind, period, spent, held + more, cold}
    end
  end
end
redis.call('HSET', KEYS[1], ARGV[1], pack_reservation(second, tokens, wanted, string.sub(was, HEAD + 1)))
for _, each in ipairs(states) do write_money(unpack(each)) end
return {'ok', 0, 0, 0}
