-- Replaces a batch of traces that waits for a sink by what is left of it, or removes it.
-- KEYS traces size
-- ARGV id traces bytes (of the old batch) traces meta data about (of the new one; 0 traces: none)
-- Returns 1; 0 where it is gone.
if redis.call('XDEL', KEYS[1], ARGV[1]) == 0 then return 0 end
local traces, bytes = -ARGV[2], -ARGV[3]
if tonumber(ARGV[4]) > 0 then
  redis.call('XADD', KEYS[1], '*', 'meta', ARGV[5], 'data', ARGV[6], 'traces', ARGV[4], 'about', ARGV[7])
  traces, bytes = traces + ARGV[4], bytes + #ARGV[6]
end
redis.call('HINCRBY', KEYS[2], 'traces', traces)
redis.call('HINCRBY', KEYS[2], 'bytes', bytes)
return 1
