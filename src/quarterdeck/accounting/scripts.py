"""The scripts of admission, as Redis runs them: what they read and write, and nothing of what calls them.

Redis runs them on one core, ten thousand times a second: all values of a request are read by one MGET, a bucket and a
budget are one string of doubles each, and a request that is counted nowhere passes by all of it.

A bucket is `at requests tokens running`: the ms at which it was as full as it says, what is left, and how many run. A
limit that is not set is full for ever (infinite): should it be set later, its bucket is full.
Money is `period-kind period spent held cold`, in 10⁻⁶ $ of one period: `spent` by what was settled, `held` by what is
under way. `cold` 1: what was spent before this was written is not counted in yet; only the worker, by the ledger, can.
2: it is about to, and what was settled since it began is in `spent`.
A reservation begins with `second tokens money` (when it was made and what it took), and a note for the worker follows.
"""

from quarterdeck.net.redis import Script

PERIOD = """
-- the number of the period (1 day, 2 week, 3 month, 4 total) in which a second lies, by UTC's calendar
local function period_of(kind, second)
  local day = math.floor(second / 86400)
  if kind == 1 then return day end
  if kind == 2 then return math.floor((day + 3) / 7) end -- the first of January 1970 was a Thursday
  if kind == 4 then return 0 end
  -- months by the days since the first of March of the year 0 ("civil from days")
  local era = math.floor((day + 719468) / 146097)
  local doe = day + 719468 - era * 146097
  local year = math.floor((doe - math.floor(doe / 1460) + math.floor(doe / 36524) - math.floor(doe / 146096)) / 365)
  local doy = doe - (365 * year + math.floor(year / 4) - math.floor(year / 100))
  return (year + era * 400) * 12 + math.floor((5 * doy + 2) / 153)
end
"""

RESERVE = Script(
    """
-- KEYS revision reservations deadlines stream cold (bucket money)* cache*
-- ARGV plan lease_ms most_waiting (id note tokens money looks)*: requests of one principal, admitted one by one
-- The plan has six doubles a scope (inference/counters.py); looks 1: the next cache key is this request's.
-- For each a plain number, the org's revision: admitted, and nothing is counted; or
-- {word revision scope requests_left requests_scope tokens_left tokens_scope retry_ms warned [blob]}, scopes from 1
"""
    + PERIOD
    + """
local clock = redis.call('TIME')
local second = tonumber(clock[1])
local now = second * 1000 + math.floor(clock[2] / 1000)
local plan, deadline, most_waiting = ARGV[1], now + ARGV[2], tonumber(ARGV[3])
local state = redis.call('MGET', unpack(KEYS))
local revision = tonumber(state[1] or 0)
local scopes, waiting, notes, deadlines = {}, nil, {}, {}
for i = 1, #plan / 48 do
  local rpm, tpm, most, kind, amount, deny = struct.unpack('<dddddd', plan, i * 48 - 47)
  local scope = {rpm = rpm, tpm = tpm, most = most, kind = kind, amount = amount, deny = deny == 1}
  if rpm > 0 or tpm > 0 or most > 0 then
    local requests, level, running = rpm, tpm, 0
    if state[4 + 2 * i] then
      local at
      at, requests, level, running = struct.unpack('<dddd', state[4 + 2 * i])
      local past = math.max(0, now - at)
      requests = math.min(rpm, requests + rpm * past / 60000)
      level = math.min(tpm, level + tpm * past / 60000)
    end
    scope.counts, scope.requests, scope.level, scope.running = true, requests, level, running
  end
  if kind > 0 then
    local was_kind, period, spent, held, cold
    if state[5 + 2 * i] then was_kind, period, spent, held, cold = struct.unpack('<ddddd', state[5 + 2 * i]) end
    local current = period_of(kind, second)
    if was_kind ~= kind then period, spent, held, cold = current, 0, held or 0, 1
    elseif period < current then period, spent, held = current, 0, 0 end
    scope.period, scope.spent, scope.held, scope.cold = period, spent, held, cold
  end
  scopes[i] = scope
end

local function admit(id, note, tokens, money, blob)
  local requests_left, requests_scope, tokens_left, tokens_scope, warned = -1, 0, -1, 0, 0
  local costs = false
  for i, scope in ipairs(scopes) do
    local rpm, tpm = scope.rpm, scope.tpm
    if scope.counts then
      local requests, level = scope.requests, scope.level
      if rpm > 0 and (requests_scope == 0 or requests < requests_left) then
        requests_left, requests_scope = requests, i
      end
      if tpm > 0 and (tokens_scope == 0 or level < tokens_left) then tokens_left, tokens_scope = level, i end
      -- a request larger than the whole bucket may still run when the bucket is full: its estimate is no fact
      local word, retry
      if not blob and scope.most > 0 and scope.running >= scope.most then word, retry = 'concurrent', 1000
      elseif rpm > 0 and requests < 1 then word, retry = 'requests', math.ceil((1 - requests) * 60000 / rpm)
      elseif not blob and tpm > 0 and level < math.min(tokens, tpm) then -- a kept answer costs only a request
        word, retry = 'tokens', math.ceil((math.min(tokens, tpm) - level) * 60000 / tpm)
      end
      if word then
        local requests_of, tokens_of = rpm > 0 and math.floor(requests) or -1, tpm > 0 and math.floor(level) or -1
        return {word, revision, i, requests_of, rpm > 0 and i or 0, tokens_of, tpm > 0 and i or 0, retry, 0}
      end
    end
    if scope.kind > 0 and money > 0 and not blob then
      costs = true
      if scope.cold > 0 then
        redis.call('SADD', KEYS[5], scope.kind .. ' ' .. string.match(KEYS[5 + 2 * i], '}:(.*)$'))
        if scope.deny then return {'cold', revision, i, -1, 0, -1, 0, 1000, 0} end
      elseif scope.spent + scope.held + money > scope.amount then
        if scope.deny then return {'money', revision, i, -1, 0, -1, 0, 0, 0} end
        warned = i
      end
    end
  end
  if costs and most_waiting > 0 then
    waiting = waiting or redis.call('XLEN', KEYS[4])
    if waiting >= most_waiting then return {'full', revision, 0, -1, 0, -1, 0, 1000, 0} end
  end
  -- it is admitted
  if not blob then
    notes[#notes + 1], notes[#notes + 2] = id, struct.pack('<ddd', second, tokens, costs and money or 0) .. note
    deadlines[#deadlines + 1], deadlines[#deadlines + 2] = deadline, id
  end
  for _, scope in ipairs(scopes) do
    if scope.counts then
      scope.taken, scope.requests = true, scope.requests - 1
      if not blob then scope.level, scope.running = scope.level - tokens, scope.running + 1 end
    end
    if costs and scope.kind > 0 then scope.paid, scope.held = true, scope.held + money end
  end
  if #scopes == 0 and not blob then return revision end
  if requests_scope > 0 then requests_left = math.floor(requests_left - 1) end
  if tokens_scope > 0 then tokens_left = math.floor(blob and tokens_left or tokens_left - tokens) end
  return {'ok', revision, 0, requests_left, requests_scope, tokens_left, tokens_scope, 0, warned, blob}
end

local answers, cache = {}, 5 + 2 * #scopes
for arg = 4, #ARGV, 5 do
  local blob
  if ARGV[arg + 4] == '1' then
    cache = cache + 1
    blob = state[cache]
  end
  answers[#answers + 1] = admit(ARGV[arg], ARGV[arg + 1], tonumber(ARGV[arg + 2]), tonumber(ARGV[arg + 3]), blob)
end
-- from here on it is taken: from all or, by the error that Redis raises first, from none
if #notes > 0 then
  redis.call('HSET', KEYS[2], unpack(notes))
  redis.call('ZADD', KEYS[3], unpack(deadlines))
end
for i, scope in ipairs(scopes) do
  if scope.taken then
    local bucket = struct.pack('<dddd', now, scope.rpm > 0 and scope.requests or math.huge,
      scope.tpm > 0 and scope.level or math.huge, scope.running)
    redis.call('SET', KEYS[4 + 2 * i], bucket, 'PX', 86400000)
  end
  if scope.paid then
    local money = struct.pack('<ddddd', scope.kind, scope.period, scope.spent, scope.held, scope.cold)
    redis.call('SET', KEYS[5 + 2 * i], money)
  end
end
return answers
"""
)

SETTLE = Script(
    """
-- KEYS reservations deadlines stream (bucket money)* settled*
-- ARGV plan (id settled_seconds status record ('' = none) used cost started)*; the plan has two digits a scope
-- how many of these requests were settled just now
-- What was settled as lost is settled once more when its gateway, or its spool, turns up: the truth after the guess.
"""
    + PERIOD
    + """
local plan = ARGV[1]
local last = 3 + #plan -- the last key of a scope
local state = #plan > 0 and redis.call('MGET', unpack(KEYS, 4, last))
local buckets, moneys, count, failed, gone = {}, {}, 0, nil, {}
if state then
  for i = 1, #plan, 2 do
    if state[i] and string.byte(plan, i) == 49 then
      local at, requests, level, running = struct.unpack('<dddd', state[i])
      buckets[i] = {at, requests, level, running, false}
    end
    if state[i + 1] and string.byte(plan, i + 1) > 48 then
      local kind, period, spent, held, cold = struct.unpack('<ddddd', state[i + 1])
      moneys[i] = {kind, period, spent, held, cold, false}
    end
  end
end
for key = last + 1, #KEYS do
  local arg = 2 + (key - last - 1) * 7
  local id, status, record = ARGV[arg], ARGV[arg + 2], ARGV[arg + 3]
  local was = redis.call('GET', KEYS[key])
  local guess = was and #was == 24
  local is_new = not was or (guess and status ~= 'lost')
  local note = not gone[id] and redis.call('HGET', KEYS[1], id)
  local second, tokens, money = tonumber(ARGV[arg + 6]), 0, 0
  if note then second, tokens, money = struct.unpack('<ddd', note) end
  -- The record first: should Redis refuse it (memory), nothing has been done yet and it may be sent again.
  if is_new then
    if record ~= '' then
      local added = redis.pcall('XADD', KEYS[3], '*', 'record', record)
      if added.err then failed = added break end
    end
    local mark = '1'
    if status == 'lost' then mark = struct.pack('<ddd', second, tonumber(ARGV[arg + 4]), tonumber(ARGV[arg + 5])) end
    redis.call('SET', KEYS[key], mark, 'EX', ARGV[arg + 1])
    count = count + 1
  end
  -- Also where it was settled before: a reservation that came late (Redis was paused) must not stay.
  if note then
    gone[id] = true
    gone[#gone + 1] = id
  end
  if state and (note or is_new) then
    local used = tonumber(ARGV[arg + 4])
    local given, spent_now = tokens - used, is_new and tonumber(ARGV[arg + 5]) or 0
    if guess and is_new then
      local at, guessed_tokens, guessed_cost = struct.unpack('<ddd', was)
      spent_now = spent_now - guessed_cost
      if not note then second, given = at, guessed_tokens - used end
    elseif not note then -- Redis was away when it came
      second = math.min(second, tonumber(redis.call('TIME')[1]))
    end
    for i, bucket in pairs(buckets) do
      if note or guess then
        if note then bucket[4] = math.max(0, bucket[4] - 1) end
        bucket[3], bucket[5] = bucket[3] + given, true
      end
    end
    for i, sum in pairs(moneys) do
      local of = period_of(sum[1], second)
      if of > sum[2] then sum[2], sum[3], sum[4] = of, 0, 0 end
      if of == sum[2] then -- else it belongs to a period that is over
        sum[3], sum[4], sum[6] = sum[3] + spent_now, math.max(0, sum[4] - money), true
      end
    end
  end
end
if #gone > 0 then
  redis.call('HDEL', KEYS[1], unpack(gone))
  redis.call('ZREM', KEYS[2], unpack(gone))
end
for i, b in pairs(buckets) do
  if b[5] then redis.call('SET', KEYS[3 + i], struct.pack('<dddd', b[1], b[2], b[3], b[4]), 'PX', 86400000) end
end
for i, m in pairs(moneys) do
  if m[6] then redis.call('SET', KEYS[4 + i], struct.pack('<ddddd', m[1], m[2], m[3], m[4], m[5])) end
end
return failed or count
"""
)

RECOUNT = Script(
    """
-- KEYS rebuilding stream money*; ARGV token kind*: from here on the budgets count for themselves; what was settled
-- before is the worker's to add. {second, last entry settled before}; {} where another worker took over
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return {} end
local second = tonumber(redis.call('TIME')[1])
"""
    + PERIOD
    + """
for i = 3, #KEYS do
  local kind, held = tonumber(ARGV[i - 1]), 0
  local state = redis.call('GET', KEYS[i])
  local current = period_of(kind, second)
  if state then
    local was_kind, period, spent, was_held = struct.unpack('<ddddd', state)
    if was_kind ~= kind or period == current then held = was_held end
  end
  redis.call('SET', KEYS[i], struct.pack('<ddddd', kind, current, 0, held, 2))
end
local last = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)[1]
return {second, last and last[1] or '0-0'}
"""
)

ADD_UP = Script(
    """
-- KEYS rebuilding cold money*; ARGV token second (kind scope amount)*: add what was settled before the recount of that
-- second, and trust the budgets again. How many there are.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
local count = 0
"""
    + PERIOD
    + """
for i = 3, #KEYS do
  local kind, scope, amount = tonumber(ARGV[i * 3 - 6]), ARGV[i * 3 - 5], tonumber(ARGV[i * 3 - 4])
  local state = redis.call('GET', KEYS[i])
  if state then
    local is_kind, period, spent, held, cold = struct.unpack('<ddddd', state)
    if is_kind == kind and cold == 2 then -- 1: lost and begun anew since the recount, so it takes another
      -- a period that has begun since was counted from its first request on
      if period == period_of(kind, ARGV[2]) then spent = spent + amount end
      redis.call('SET', KEYS[i], struct.pack('<ddddd', kind, period, spent, held, 0))
      count = count + 1
    end
  end
  redis.call('SREM', KEYS[2], kind .. ' ' .. scope)
end
redis.call('DEL', KEYS[1])
return count
"""
)

RENEW = Script("""
-- KEYS reservations deadlines; ARGV lease_ms (id note)*
local clock = redis.call('TIME')
local deadline = clock[1] * 1000 + math.floor(clock[2] / 1000) + ARGV[1]
for i = 2, #ARGV, 2 do
  local was = redis.call('HGET', KEYS[1], ARGV[i])
  if was then
    redis.call('HSET', KEYS[1], ARGV[i], string.sub(was, 1, 24) .. ARGV[i + 1])
    redis.call('ZADD', KEYS[2], deadline, ARGV[i])
  end
end
return #ARGV
""")

EXPIRED = Script("""
-- KEYS reservations deadlines; ARGV most grace_ms: ids and notes of requests whose gateway let the deadline pass
-- Found the first time, one is only marked ('!') and its gateway has grace_ms to renew it: Redis may have been away.
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local ids = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now, 'LIMIT', 0, tonumber(ARGV[1]))
local found = {}
for _, id in ipairs(ids) do
  local was = redis.call('HGET', KEYS[1], id)
  if not was then
    redis.call('ZREM', KEYS[2], id)
  elseif string.sub(was, 25, 25) == '!' then
    found[#found + 1], found[#found + 2] = id, string.sub(was, 26)
  elseif tonumber(ARGV[2]) == 0 then
    found[#found + 1], found[#found + 2] = id, string.sub(was, 25)
  else
    redis.call('HSET', KEYS[1], id, string.sub(was, 1, 24) .. '!' .. string.sub(was, 25))
    redis.call('ZADD', KEYS[2], now + ARGV[2], id)
  end
end
return found
""")

FORGET = Script("""
-- KEYS reservations deadlines; ARGV id
redis.call('HDEL', KEYS[1], ARGV[1])
return redis.call('ZREM', KEYS[2], ARGV[1])
""")
