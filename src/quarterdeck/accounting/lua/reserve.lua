-- Admits requests of one principal, one by one: takes a request, tokens, a slot and money from every scope, or nothing.
-- KEYS revision reservations deadlines stream cold (bucket money)* cache*
-- ARGV plan lease_ms most_waiting (id note numbers)*
-- The plan has six doubles a scope (layouts.pack_plan). The numbers are three doubles, `tokens money looks`; looks 1:
-- the next cache key is this request's.
-- Returns for each request a plain number, the org's revision: admitted, and nothing is counted; or
-- {word revision scope requests_left requests_scope tokens_left tokens_scope retry_ms warned [blob]}, scopes from 1;
-- where the budget has no room, retry_ms is the money that is left of it, and warned is what requests in flight hold.
-- All values are read by one MGET, and a request that is counted nowhere skips everything else: Redis runs this on one
-- core, ten thousand times a second.
--include clock.lua
--include period.lua
--include bucket.lua
--include money.lua
--include reservation.lua
local second, now_ms = now()
local plan, deadline, most_waiting = ARGV[1], now_ms + ARGV[2], tonumber(ARGV[3])
local state = redis.call('MGET', unpack(KEYS))
local revision = tonumber(state[1] or 0)
local scopes, waiting, notes, deadlines = {}, nil, {}, {}

-- Reads the scopes as of a second. Returns a later second where a budget is in the next period already: the clock has
-- stepped back (a fail-over to a slower one), and a budget never does.
local function read_scopes()
  local later
  for i = 1, #plan / 48 do
    local rpm, tpm, most, kind, amount, deny = struct.unpack('<dddddd', plan, i * 48 - 47)
    local scope = {rpm = rpm, tpm = tpm, most = most, kind = kind, amount = amount, deny = deny == 1}
    if rpm > 0 or tpm > 0 or most > 0 then
      local requests, level, running = rpm, tpm, 0
      if state[4 + 2 * i] then
        local at
        at, requests, level, running = unpack_bucket(state[4 + 2 * i])
        local past = now_ms - at
        if past < 0 then past, scope.is_ahead = 0, true end -- refilled from now on, not when the clock has caught up
        requests = math.min(rpm, requests + rpm * past / 60000)
        level = math.min(tpm, level + tpm * past / 60000)
      end
      scope.counts, scope.requests, scope.level, scope.running = true, requests, level, running
    end
    if kind > 0 then
      local was_kind, period, spent, held, cold
      if state[5 + 2 * i] then was_kind, period, spent, held, cold = unpack_money(state[5 + 2 * i]) end
      local current = period_of(kind, second)
      if was_kind ~= kind then period, spent, held, cold = current, 0, held or 0, COLD
      elseif period < current then period, spent, held = current, 0, 0
      elseif period == current + 1 then later = math.max(later or 0, start_of(kind, period))
      elseif period > current then period, spent, cold = current, 0, COLD end -- that clock was wrong
      scope.period, scope.spent, scope.held, scope.cold = period, spent, held, cold
    end
    scopes[i] = scope
  end
  return later
end

local later = read_scopes()
if later then
  second = later
  read_scopes()
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
      -- A request larger than the whole bucket may run when the bucket is full: its estimate is not a fact.
      local word, retry
      if not blob and scope.most > 0 and scope.running >= scope.most then word, retry = 'concurrent', 1000
      elseif rpm > 0 and requests < 1 then word, retry = 'requests', math.ceil((1 - requests) * 60000 / rpm)
      elseif not blob and tpm > 0 and level < math.min(tokens, tpm) then -- a cached answer costs only a request
        word, retry = 'tokens', math.ceil((math.min(tokens, tpm) - level) * 60000 / tpm)
      end
      if word then
        local requests_of, tokens_of = rpm > 0 and math.floor(requests) or -1, tpm > 0 and math.floor(level) or -1
        return {word, revision, i, requests_of, rpm > 0 and i or 0, tokens_of, tpm > 0 and i or 0, retry, 0}
      end
    end
    if scope.kind > 0 and money > 0 and not blob then
      costs = true
      if scope.cold > COUNTED then
        redis.call('SADD', KEYS[5], scope.kind .. ' ' .. string.match(KEYS[5 + 2 * i], '}:(.*)$'))
        if scope.deny then return {'cold', revision, i, -1, 0, -1, 0, 0, 0} end
      elseif scope.spent + scope.held + money > scope.amount then
        if scope.deny then
          local unspent = math.max(0, scope.amount - scope.spent)
          local held = math.min(scope.held, unspent)
          return {'money', revision, i, -1, 0, -1, 0, math.floor(unspent - held), math.ceil(held)}
        end
        warned = i
      end
    end
  end
  if costs and most_waiting > 0 then
    waiting = waiting or redis.call('XLEN', KEYS[4])
    if waiting >= most_waiting then return {'full', revision, 0, -1, 0, -1, 0, 0, 0} end
  end
  -- It is admitted.
  if not blob then
    notes[#notes + 1], notes[#notes + 2] = id, pack_reservation(second, tokens, costs and money or 0, note)
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
for arg = 4, #ARGV, 3 do
  local tokens, money, looks = struct.unpack('<ddd', ARGV[arg + 2])
  local blob
  if looks == 1 then
    cache = cache + 1
    blob = state[cache]
  end
  answers[#answers + 1] = admit(ARGV[arg], ARGV[arg + 1], tokens, money, blob)
end
-- Everything is written from here on. Should Redis refuse to write, the first command raises and nothing is taken.
if #notes > 0 then
  redis.call('HSET', KEYS[2], unpack(notes))
  redis.call('ZADD', KEYS[3], unpack(deadlines))
end
for i, scope in ipairs(scopes) do
  if scope.taken or scope.is_ahead then
    local requests, level = scope.rpm > 0 and scope.requests or math.huge, scope.tpm > 0 and scope.level or math.huge
    write_bucket(KEYS[4 + 2 * i], now_ms, requests, level, scope.running)
  end
  if scope.paid then
    write_money(KEYS[5 + 2 * i], scope.kind, scope.period, scope.spent, scope.held, scope.cold)
  end
end
return answers
