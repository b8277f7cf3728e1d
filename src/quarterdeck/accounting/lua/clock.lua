-- The clock of Redis: Unix seconds, and Unix milliseconds.
local function now()
  local clock = redis.call('TIME')
  local second = tonumber(clock[1])
  return second, second * 1000 + math.floor(clock[2] / 1000)
end
