"""Pages of buckets cover a range once, whatever its limits."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quarterdeck.errors import BadRequestError
from quarterdeck.resources.usage.pages import LIMITS, WIDTHS, page_of

DAY = 86_400


@given(st.integers(0, 10**10), st.integers(1, 40 * DAY), st.sampled_from(["1h", "1d"]), st.integers(1, 31))
def test_pages_follow_one_another_and_cover_the_range(start: int, length: int, name: str, limit: int) -> None:
    width, end = WIDTHS[name], start + length
    page = page_of(start, end, width, limit, None, LIMITS[name])
    pages = [page]
    while page.next is not None:
        page = page_of(start, end, width, limit, page.next, LIMITS[name])
        pages.append(page)
    assert (pages[0].since, pages[-1].until) == (start, end)
    assert all(first.end == second.start == second.since for first, second in itertools.pairwise(pages))
    buckets = [bucket for each in pages for bucket in each.buckets()]
    assert all(1 <= len(list(each.buckets())) <= limit for each in pages)
    assert buckets == list(range(start // width * width, -(-end // width) * width, width))


@pytest.mark.parametrize("cursor", ["page_", "x", "page_MA", "page_" + "9" * 40, "page_LTE", "pagé", "page_ODY0MDE"])
def test_a_cursor_of_something_else_is_refused(cursor: str) -> None:
    with pytest.raises(BadRequestError) as caught:
        page_of(DAY, 3 * DAY, DAY, None, cursor, LIMITS["1d"])
    assert caught.value.param == "page"


@pytest.mark.parametrize(("limit", "end", "param"), [(0, 2, "limit"), (32, 2, "limit"), (None, 1, "end_time")])
def test_limits_and_ranges_are_checked(limit: int | None, end: int, param: str) -> None:
    with pytest.raises(BadRequestError) as caught:
        page_of(DAY, end * DAY, DAY, limit, None, LIMITS["1d"])
    assert caught.value.param == param
