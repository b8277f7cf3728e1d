-- Acknowledges and deletes entries; with most > 0, appends them to the traces and trims the oldest of those.
-- KEYS ledger traces [rebuilding]
-- ARGV group most id*
-- Returns {done, dropped}, or {-1} while budgets are rebuilt from a consistent view of ledger and stream.
-- Only the worker whose XACK succeeds appends: of two workers with the same entry, one.
if KEYS[3] and redis.call('EXISTS', KEYS[3]) == 1 then return {-1} end
local most, done, dropped = tonumber(ARGV[2]), 0, 0
for i = 3, #ARGV do
  if redis.call('XACK', KEYS[1], ARGV[1], ARGV[i]) == 1 then
    done = done + 1
    if most > 0 then
      local entry = redis.call('XRANGE', KEYS[1], ARGV[i], ARGV[i])[1]
      if entry then redis.call('XADD', KEYS[2], '*', unpack(entry[2])) end
    end
    redis.call('XDEL', KEYS[1], ARGV[i])
  end
end
if most > 0 then dropped = redis.call('XTRIM', KEYS[2], 'MAXLEN', most) end
return {done, dropped}
