-- The layout of a money key: five doubles, `kind period spent held cold`. accounting/layouts.py reads it in Python.
-- `kind` and `period` are those of period.lua. `spent` and `held` are in 10^-6 $: what was settled in this period, and
-- what requests in flight have reserved. `cold` says whether `spent` can be trusted:
local COUNTED = 0
local COLD = 1 -- what was spent before this key was written is missing; only the worker can count it, from the ledger
local RECOUNTING = 2 -- the worker is about to add it; what was settled since it began is in `spent`

local function unpack_money(data)
  return struct.unpack('<ddddd', data)
end

local function write_money(key, kind, period, spent, held, cold)
  redis.call('SET', key, struct.pack('<ddddd', kind, period, spent, held, cold))
end
