"""Which period of a budget it is and when it began, by UTC's calendar. Pure.

`admission_scripts.PERIOD` says the same in Lua.
"""

from datetime import UTC, datetime, timedelta


def period_start(period: str, second: float) -> float:
    """Unix seconds at which the period (day, week, month, total) began in which `second` lies."""
    if period == "total":
        return 0.0
    day = datetime.fromtimestamp(second, UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    if period == "week":
        day -= timedelta(days=day.weekday())
    elif period == "month":
        day = day.replace(day=1)
    return day.timestamp()


def period_number(period: str, second: float) -> int:
    """The number by which Redis knows the period in which `second` lies."""
    days = int(second // 86_400)
    if period == "day":
        return days
    if period == "week":
        return (days + 3) // 7  # the first of January 1970 was a Thursday
    if period == "month":
        date = datetime.fromtimestamp(second, UTC)
        return date.year * 12 + date.month - 3  # the year begins in March
    return 0
