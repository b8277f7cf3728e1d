-- A budget's period as scripts decide it; accounting/periods.py is the Python side, and a test compares the two.
-- Kinds: 1 day, 2 week, 3 month, 4 total. Returns the number of the period that contains a second, by UTC's calendar.
local function period_of(kind, second)
  local day = math.floor(second / 86400)
  if kind == 1 then return day end
  if kind == 2 then return math.floor((day + 3) / 7) end -- 1 January 1970 was a Thursday
  if kind == 4 then return 0 end
  -- months by the days since 1 March of year 0 ("civil from days")
  local era = math.floor((day + 719468) / 146097)
  local doe = day + 719468 - era * 146097
  local year = math.floor((doe - math.floor(doe / 1460) + math.floor(doe / 36524) - math.floor(doe / 146096)) / 365)
  local doy = doe - (365 * year + math.floor(year / 4) - math.floor(year / 100))
  return (year + era * 400) * 12 + math.floor((5 * doy + 2) / 153)
end

-- The first second of a period.
local function start_of(kind, period)
  if kind == 1 then return period * 86400 end
  if kind == 2 then return (period * 7 - 3) * 86400 end
  if kind == 4 then return 0 end
  local year, month = math.floor(period / 12), period % 12 -- the year begins in March
  local leap_days = math.floor(year / 4) - math.floor(year / 100) + math.floor(year / 400)
  return (year * 365 + leap_days + math.floor((153 * month + 2) / 5) - 719468) * 86400
end
