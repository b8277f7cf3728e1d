-- Acknowledges and deletes records, and appends their traces to the queue of each sink, whose oldest are dropped.
-- KEYS ledger rebuilding tailing tail (traces size)*
-- ARGV group count id*count most_bytes*queues (traces meta data about ('' = no contents))*
-- Returns {done, dropped*queues}, or {-1} while budgets are rebuilt from a consistent view of ledger and stream.
-- Only the worker whose XACK succeeds appends. If another has acknowledged some, their traces are there twice, with the
-- same ids.
local function first_unread(stream)
  local groups = redis.pcall('XINFO', 'GROUPS', stream)
  local group = not groups.err and groups[1]
  if not group then return '-' end
  for at = 1, #group, 2 do
    if group[at] == 'last-delivered-id' then return '(' .. group[at + 1] end
  end
  return '-'
end
if redis.call('EXISTS', KEYS[2]) == 1 then return {-1} end
local count = tonumber(ARGV[2])
local done = redis.call('XACK', KEYS[1], ARGV[1], unpack(ARGV, 3, 2 + count))
-- A client follows the requests: their records also go to a short stream, which expires when no client does any more.
if done > 0 and redis.call('EXISTS', KEYS[3]) == 1 then
  for at = 3, 2 + count do
    local entry = redis.call('XRANGE', KEYS[1], ARGV[at], ARGV[at])[1]
    if entry then redis.call('XADD', KEYS[4], 'MAXLEN', '~', 1000, '*', unpack(entry[2])) end
  end
  redis.call('EXPIRE', KEYS[4], 60)
end
redis.call('XDEL', KEYS[1], unpack(ARGV, 3, 2 + count))
local queues = (#KEYS - 4) / 2
local first = 3 + count + queues -- of the batches
local answer = {done}
for queue = 1, queues do
  local stream, size = KEYS[3 + 2 * queue], KEYS[4 + 2 * queue]
  local dropped = 0
  for at = first, #ARGV, 4 do
    if done == 0 then break end
    -- The records are in the ledger: without memory for their traces they are dropped, and counted.
    local batch = {'meta', ARGV[at + 1], 'data', ARGV[at + 2], 'traces', ARGV[at]}
    if ARGV[at + 3] ~= '' then batch[7], batch[8] = 'about', ARGV[at + 3] end
    local added = redis.pcall('XADD', stream, '*', unpack(batch))
    if added.err then
      dropped = dropped + tonumber(ARGV[at])
    else
      redis.call('HINCRBY', size, 'traces', ARGV[at])
      redis.call('HINCRBY', size, 'bytes', #ARGV[at + 2])
    end
  end
  local most = tonumber(ARGV[2 + count + queue])
  -- What a worker has read it may be sending: dropped, it would be counted as dropped and arrive all the same. So the
  -- oldest of those that no worker has read go first.
  local from = first_unread(stream)
  while tonumber(redis.call('HGET', size, 'bytes') or 0) > most do
    local oldest = redis.call('XRANGE', stream, from, '+', 'COUNT', 1)[1]
    if oldest then
      redis.call('XDEL', stream, oldest[1])
      redis.call('HINCRBY', size, 'traces', -oldest[2][6])
      redis.call('HINCRBY', size, 'bytes', -#oldest[2][4])
      dropped = dropped + tonumber(oldest[2][6])
    elseif from ~= '-' then
      from = '-'
    else
      redis.call('DEL', size)
      break
    end
  end
  -- What waits for a sink that was removed from the configuration is forgotten.
  redis.call('EXPIRE', stream, 604800)
  redis.call('EXPIRE', size, 604800)
  answer[1 + queue] = dropped
end
return answer
