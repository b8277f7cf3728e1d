"""A budget's period: which one contains a given second, and when it began, by UTC's calendar. Pure.

`lua/period.lua` decides the same inside the scripts, by Redis' clock; a test compares the two.
"""

from datetime import UTC, datetime, timedelta

PERIODS = ("", "day", "week", "month", "total")
"""A period's name by its kind, the number that scripts know it by. 0: no budget."""


def period_kind(period: str) -> int:
    """The kind of a period by its name. Raises ValueError where there is none."""
    return PERIODS.index(period)


def period_start(period: str, second: float) -> float:
    """Unix seconds at which the period (day, week, month, total) that contains `second` began."""
    if period == "total":
        return 0.0
    day = datetime.fromtimestamp(second, UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    if period == "week":
        day -= timedelta(days=day.weekday())
    elif period == "month":
        day = day.replace(day=1)
    return day.timestamp()


def period_end(period: str, second: float) -> float:
    """Unix seconds at which the period (day, week, month) that contains `second` ends."""
    start = datetime.fromtimestamp(period_start(period, second), UTC)
    if period == "month":  # day 28 exists in every month, and four days after it is the next one
        return (start.replace(day=28) + timedelta(days=4)).replace(day=1).timestamp()
    return (start + timedelta(days=7 if period == "week" else 1)).timestamp()


def period_number(period: str, second: float) -> int:
    """The number of the period that contains `second`, as the scripts count them."""
    days = int(second // 86_400)
    if period == "day":
        return days
    if period == "week":
        return (days + 3) // 7  # 1 January 1970 was a Thursday
    if period == "month":
        date = datetime.fromtimestamp(second, UTC)
        return date.year * 12 + date.month - 3  # the year begins in March
    return 0
