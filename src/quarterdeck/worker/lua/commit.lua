-- Acknowledges and deletes entries; with most > 0, appends them to the traces and trims the oldest of those.
-- KEYS ledger traces [rebuilding tailing tail]
-- ARGV group most id*
-- Returns {done, dropped}, or {-1} while budgets are rebuilt from a consistent view of ledger and stream.
-- Only the worker whose XACK succeeds appends: of two workers with the same entry, one.
if KEYS[3] and redis.call('EXISTS', KEYS[3]) == 1 then return {-1} end
local most, done, dropped = tonumber(ARGV[2]), 0, 0
-- Somebody follows the requests: their records also go to a short stream, which expires when nobody does any more.
local tail = KEYS[4] and redis.call('EXISTS', KEYS[4]) == 1 and KEYS[5]
for i = 3, #ARGV do
  if redis.call('XACK', KEYS[1], ARGV[1], ARGV[i]) == 1 then
    done = done + 1
    if most > 0 or tail then
      local entry = redis.call('XRANGE', KEYS[1], ARGV[i], ARGV[i])[1]
      if entry and most > 0 then redis.call('XADD', KEYS[2], '*', unpack(entry[2])) end
      if entry and tail then redis.call('XADD', tail, 'MAXLEN', '~', 1000, '*', unpack(entry[2])) end
    end
    redis.call('XDEL', KEYS[1], ARGV[i])
  end
end
if tail then redis.call('EXPIRE', tail, 60) end
if most > 0 then dropped = redis.call('XTRIM', KEYS[2], 'MAXLEN', most) end
return {done, dropped}
