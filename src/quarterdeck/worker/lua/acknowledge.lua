-- Acknowledges and deletes batches that a sink has taken or refused.
-- KEYS traces size
-- ARGV group (id traces bytes)*
-- Returns how many were there. One that was dropped meanwhile is no longer counted in size.
local done = 0
for at = 2, #ARGV, 3 do
  redis.call('XACK', KEYS[1], ARGV[1], ARGV[at])
  if redis.call('XDEL', KEYS[1], ARGV[at]) == 1 then
    done = done + 1
    redis.call('HINCRBY', KEYS[2], 'traces', -ARGV[at + 1])
    redis.call('HINCRBY', KEYS[2], 'bytes', -ARGV[at + 2])
  end
end
return done
