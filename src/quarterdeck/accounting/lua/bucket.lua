-- The layout of a bucket key: four doubles, `at requests tokens running`.
-- `at` is the millisecond at which `requests` and `tokens` were left; `running` requests are in flight. A limit that is
-- not set is infinite, so that its bucket is full if the limit is set later. A bucket that is unused for a day is full.
local function unpack_bucket(data)
  return struct.unpack('<dddd', data)
end

local function write_bucket(key, at, requests, tokens, running)
  redis.call('SET', key, struct.pack('<dddd', at, requests, tokens, running), 'PX', 86400000)
end
