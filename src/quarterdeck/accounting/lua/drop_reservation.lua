-- Drops a reservation that cannot be read. Returns whether it had a deadline.
-- KEYS reservations deadlines
-- ARGV id
redis.call('HDEL', KEYS[1], ARGV[1])
return redis.call('ZREM', KEYS[2], ARGV[1])
