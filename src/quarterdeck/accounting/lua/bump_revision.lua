-- Counts an org's revision up, marks the budget of what was changed for a recount, and publishes the change.
-- KEYS revision money cold
-- ARGV channel message scope kind; `kind` is the period of a new key's budget, 0 where nothing is new
-- Returns the revision.
-- A budget may have been removed and set again: what was spent in between was not counted, so the worker recounts it.
-- A new key has spent nothing, so its first request need not wait for the worker.
--include clock.lua
--include period.lua
--include money.lua
local money, kind = redis.call('GET', KEYS[2]), tonumber(ARGV[4])
if money then
  local was_kind, period, spent, held, cold = unpack_money(money)
  redis.call('SADD', KEYS[3], was_kind .. ' ' .. ARGV[3])
  -- A recount in progress began too early: its sum must not be taken.
  if cold == RECOUNTING then write_money(KEYS[2], was_kind, period, spent, held, COLD) end
elseif kind > 0 then
  write_money(KEYS[2], kind, period_of(kind, (now())), 0, 0, COUNTED)
end
local revision = redis.call('INCR', KEYS[1])
redis.call('PUBLISH', ARGV[1], string.format('%d %s', revision, ARGV[2]))
return revision
