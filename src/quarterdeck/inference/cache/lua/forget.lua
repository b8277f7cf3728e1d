-- Forgets entries. Returns how many of them had not expired.
-- KEYS index info bytes
-- ARGV prefix key*
--include drop.lua
return (drop({unpack(ARGV, 2)}))
