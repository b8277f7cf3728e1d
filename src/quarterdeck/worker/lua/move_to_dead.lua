-- Moves one entry to the dead stream, with the reason. Returns 1; 0 where another worker did.
-- KEYS stream dead
-- ARGV group id reason
local entry = redis.call('XRANGE', KEYS[1], ARGV[2], ARGV[2])[1]
if redis.call('XACK', KEYS[1], ARGV[1], ARGV[2]) == 0 or not entry then return 0 end
redis.call('XADD', KEYS[2], '*', 'reason', ARGV[3], 'entry', ARGV[2], unpack(entry[2]))
redis.call('XDEL', KEYS[1], ARGV[2])
return 1
