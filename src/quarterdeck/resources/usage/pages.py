"""A range of time as OpenAI's pages of buckets: which buckets a page has, and the cursor to the next. Pure."""

import base64
import binascii
from collections.abc import Iterator
from dataclasses import dataclass

from quarterdeck.errors import BadRequestError

WIDTHS = {"1m": 60, "1h": 3600, "1d": 86_400}
LIMITS = {"1m": (60, 1440), "1h": (24, 168), "1d": (7, 31)}
"""Default and most buckets of a page, by width; OpenAI's."""
COST_LIMITS = (7, 180)
"""Of a page of costs, in days."""


@dataclass(frozen=True, slots=True)
class Page:
    """Whole buckets of `width` seconds from `start` to before `end`, Unix seconds. `since` and `until` bound what is
    counted in the first and the last one."""

    start: int
    end: int
    width: int
    since: int
    until: int
    next: str | None
    """The cursor of the next page."""

    def buckets(self) -> Iterator[int]:
        """The beginning of each bucket."""
        return iter(range(self.start, self.end, self.width))


def page_of(
    start_time: int, end_time: int, width: int, limit: int | None, cursor: str | None, limits: tuple[int, int]
) -> Page:
    """The page at `cursor`; None: the first. Buckets begin at multiples of `width`. Raises BadRequestError."""
    default, most = limits
    count = default if limit is None else limit
    if not 1 <= count <= most:
        raise _invalid("limit", f"`limit` must be between 1 and {most} for this bucket width.")
    if end_time <= start_time:
        raise _invalid("end_time", "`end_time` must be later than `start_time`.")
    first = start_time // width * width
    start = first if cursor is None else _read(cursor)
    if start < first or start >= end_time or start % width:
        raise _invalid("page", "This `page` is not a cursor of this query.")
    last = -(-end_time // width) * width
    end = min(start + count * width, last)
    return Page(
        start=start,
        end=end,
        width=width,
        since=max(start, start_time),
        until=min(end, end_time),
        next=_write(end) if end < last else None,
    )


def _write(start: int) -> str:
    return "page_" + base64.urlsafe_b64encode(b"%d" % start).decode().rstrip("=")


def _read(cursor: str) -> int:
    text = cursor.removeprefix("page_")
    try:
        number = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode()
        return int(number) if number.isdecimal() and len(number) < 16 else -1
    except (binascii.Error, UnicodeError, ValueError):
        return -1


def _invalid(param: str, message: str) -> BadRequestError:
    return BadRequestError(message, param=param, code="invalid_value")
