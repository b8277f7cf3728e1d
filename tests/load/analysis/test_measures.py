"""Number formats and the rows of a comparison."""

from pathlib import Path

import pytest
from tests.load.folders import steady, write_run

from quarterdeck.load.analysis import measures, results, summary


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "–"), (0.0, "0 %"), (0.00001, "< 0.01 %"), (0.123456, "12.3 %"), (0.99996, "> 99.99 %"), (1.0, "100 %")],
)
def test_a_share_never_rounds_to_nothing_or_to_all(value: float | None, text: str) -> None:
    assert measures.share(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(None, "–"), (1.234, "1.23 ms"), (12.34, "12.3 ms"), (1234, "1,234 ms"), (12_340, "12.3 s")]
)
def test_milliseconds_become_seconds_from_ten_seconds(value: float | None, text: str) -> None:
    assert measures.ms(value) == text


@pytest.mark.parametrize(("seconds", "text"), [(90, "90 s"), (720, "12 min"), (5400 * 2, "3 h"), (9000, "2 h 30 min")])
def test_durations_are_rounded_to_a_readable_unit(seconds: float, text: str) -> None:
    assert measures.duration(seconds) == text


def test_only_latencies_have_a_difference() -> None:
    assert measures.difference(12, 10, "ms") == "+2.00 ms"
    assert measures.difference(10, 12, "ms") == "−2.00 ms"
    assert measures.difference(12, 10, "/s") == ""
    assert measures.ratio(1, 0) == measures.ratio(None, 1) == "–"


def test_goodput_requires_objectives(tmp_path: Path) -> None:
    side = summary.measured(results.read(write_run(tmp_path, steady(10), slo={})))
    _, rows = measures.beside([side])
    names = [row[0] for row in rows]
    assert "answered" in names
    assert "goodput" not in names
    assert len(rows[0]) == 2
