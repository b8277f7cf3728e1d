-- Settles requests of one principal: ends their reservations, corrects the scopes and appends the records. Idempotent.
-- KEYS reservations deadlines stream (bucket money)* settled* content*
-- ARGV plan (id record ('' = none) numbers)* [contents]; the plan has two digits a scope, the numbers are five doubles:
-- `settled_seconds is_lost used cost started`
-- A plan that ends with 'c' announces contents: (position bytes)* count seconds most. Position: of the request, from 1.
-- A content is kept for `seconds` beside its record, unless more than `most` records wait for the worker.
-- Returns how many of these requests were not settled before.
-- A request that was settled as lost is settled again when its gateway or its spool turns up: the facts replace the
-- estimate, which the settled key holds meanwhile as three doubles, `second used cost`.
--include period.lua
--include bucket.lua
--include money.lua
--include reservation.lua
local plan = ARGV[1]
local contents, count_of_contents, content_seconds = nil, 0, 0
if string.byte(plan, -1) == 99 then
  plan = string.sub(plan, 1, -2)
  count_of_contents, content_seconds = tonumber(ARGV[#ARGV - 2]), ARGV[#ARGV - 1]
  contents = {}
  if redis.call('XLEN', KEYS[3]) < tonumber(ARGV[#ARGV]) then
    for i = 1, count_of_contents do
      local arg = #ARGV - 4 - 2 * (count_of_contents - i)
      contents[tonumber(ARGV[arg])] = {KEYS[#KEYS - count_of_contents + i], ARGV[arg + 1]}
    end
  end
end
local last = 3 + #plan -- the last key of a scope
local state = #plan > 0 and redis.call('MGET', unpack(KEYS, 4, last))
local buckets, moneys, count, failed, ended = {}, {}, 0, nil, {}
if state then
  for i = 1, #plan, 2 do
    if state[i] and string.byte(plan, i) == 49 then
      local at, requests, level, running = unpack_bucket(state[i])
      buckets[i] = {at, requests, level, running, false}
    end
    if state[i + 1] and string.byte(plan, i + 1) > 48 then
      local kind, period, spent, held, cold = unpack_money(state[i + 1])
      moneys[i] = {kind, period, spent, held, cold, false}
    end
  end
end
for key = last + 1, #KEYS - count_of_contents do
  local arg = 2 + (key - last - 1) * 3
  local id, record = ARGV[arg], ARGV[arg + 1]
  local settled_seconds, is_lost, used, cost, started = struct.unpack('<ddddd', ARGV[arg + 2])
  local was = redis.call('GET', KEYS[key])
  local guess = was and #was == 24
  local is_new = not was or (guess and is_lost == 0)
  local note = not ended[id] and redis.call('HGET', KEYS[1], id)
  local second, tokens, money = started, 0, 0
  if note then second, tokens, money = unpack_reservation(note) end
  -- The record first: if Redis refuses it (memory), nothing has been done yet and it may be sent again.
  if is_new then
    if record ~= '' then
      local added = redis.pcall('XADD', KEYS[3], '*', 'record', record)
      if added.err then failed = added break end
    end
    local content = contents and contents[key - last]
    -- A refusal (memory) loses the content, not the record.
    if content then redis.pcall('SET', content[1], content[2], 'EX', content_seconds) end
    local mark = '1'
    if is_lost == 1 then mark = struct.pack('<ddd', second, used, cost) end
    redis.call('SET', KEYS[key], mark, 'EX', settled_seconds)
    count = count + 1
  end
  -- Also where it was settled before: a reservation that came late (Redis was paused) must not stay.
  if note then
    ended[id] = true
    ended[#ended + 1] = id
  end
  if state and (note or is_new) then
    local given, spent_now = tokens - used, is_new and cost or 0
    if guess and is_new then
      local at, guessed_tokens, guessed_cost = struct.unpack('<ddd', was)
      spent_now = spent_now - guessed_cost
      if not note then second, given = at, guessed_tokens - used end
    elseif not note then -- it was admitted while Redis was away
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
      if of > sum[2] then
        -- Reserved by a clock that was ahead, and the budget was recounted since by one that is right: it is held there.
        if of > period_of(sum[1], tonumber(redis.call('TIME')[1])) then of = sum[2]
        else sum[2], sum[3], sum[4] = of, 0, 0 end
      end
      if of == sum[2] then -- else it belongs to a period that is over
        sum[3], sum[4], sum[6] = sum[3] + spent_now, math.max(0, sum[4] - money), true
      end
    end
  end
end
if #ended > 0 then
  redis.call('HDEL', KEYS[1], unpack(ended))
  redis.call('ZREM', KEYS[2], unpack(ended))
end
for i, b in pairs(buckets) do
  if b[5] then write_bucket(KEYS[3 + i], b[1], b[2], b[3], b[4]) end
end
for i, m in pairs(moneys) do
  if m[6] then write_money(KEYS[4 + i], m[1], m[2], m[3], m[4], m[5]) end
end
return failed or count
