"""When a budget's period began, by UTC's calendar. Pure; `admission_scripts.PERIOD` says the same in Lua."""

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
