"""Usage as a table: sums by group, spark lines, and the width of the screen."""

from decimal import Decimal
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from quarterdeck.cli.usage_table import BARS, MAX_SPARK, TOKENS, rows_of, spark_line, table

DAY = 86_400


def an_hour(key: str, start: int, cost: str, **changes: Any) -> dict[str, Any]:
    tokens = {"input_tokens": 10, "cached_tokens": 0, "output_tokens": 5, "reasoning_tokens": 0}
    return {"key": key, "start": start, "requests": 1, **tokens, "cost": cost, "saved": "0"} | changes


def test_buckets_are_summed_exactly_and_the_dearest_group_is_first() -> None:
    tiny = "0.000000000000000000000000000001"
    rows = rows_of([an_hour("a", 0, tiny), an_hour("b", 0, "1"), an_hour("a", DAY, "0.5")], ["key"])
    assert [row.group for row in rows] == [("b",), ("a",)]
    assert rows[1].cost == Decimal("0.500000000000000000000000000001")
    assert rows[1].counts["requests"] == 2


def test_a_row_has_a_spark_line_of_every_bucket() -> None:
    rows = rows_of([an_hour("a", 0, "1"), an_hour("a", 2 * DAY, "8"), an_hour("b", DAY, "4")], ["key"])
    head, a, b = table(rows, ["key"], names={"a": "ci"}, buckets=range(0, 4 * DAY, DAY)).splitlines()
    assert head.split() == ["KEY", "REQUESTS", "INPUT", "OUTPUT", "COST", "COST"]
    assert a.split()[0] == "ci" and a.endswith("▂ █")
    assert b.endswith(" █") and b.split()[:5] == ["b", "1", "10", "5", "$4"]


def test_requests_are_drawn_where_nothing_costs() -> None:
    rows = rows_of([an_hour("a", 0, "0"), an_hour("a", DAY, "0", requests=8)], ["key"])
    assert table(rows, ["key"], names={}, buckets=range(0, 2 * DAY, DAY)).endswith("▂█")


@given(st.lists(st.integers(0, 10**9), max_size=200), st.integers(1, MAX_SPARK))
def test_a_spark_line_fits_and_shows_all_that_is_not_nothing(values: list[int], width: int) -> None:
    line = spark_line(values, width)
    assert len(line) == min(len(values), width)
    assert (not line.strip()) == (not any(values))
    assert not any(values) or BARS[-1] in line
    if len(values) <= width:
        assert [char == " " for char in line] == [value == 0 for value in values]


@given(
    st.lists(st.text("abc", min_size=1, max_size=80), min_size=1, max_size=4, unique=True),
    st.integers(0, 200),
    st.integers(60, 200),
)
def test_no_line_is_wider_than_the_screen(keys: list[str], buckets: int, width: int) -> None:
    rows = rows_of([an_hour(key, 0, "123.456") for key in keys], ["key"])
    text = table(rows, ["key"], names={}, buckets=range(buckets), width=width)
    assert max(map(len, text.splitlines())) <= width


def test_names_are_whole_where_there_is_no_screen() -> None:
    rows = rows_of([an_hour("x" * 300, 0, "1")], ["key"])
    assert "x" * 300 in table(rows, ["key"], names={})


def test_units_of_audio_and_images_are_shown_where_there_are_any() -> None:
    one = {"requests": 2, **dict.fromkeys(TOKENS, 0), "cost": "0.5", "saved": "0", "model": "whisper"}
    rows = rows_of([{**one, "audio_seconds": 1.5, "images": 3}, {**one, "audio_seconds": 0.25}], ["model"])
    lines = table(rows, ["model"], names={}).splitlines()
    assert lines[0].split() == ["MODEL", "REQUESTS", "INPUT", "OUTPUT", "AUDIO", "S", "IMAGES", "COST"]
    assert lines[1].split() == ["whisper", "4", "0", "0", "1.75", "3", "$1"]
