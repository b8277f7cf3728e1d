"""How far a download is, in words."""

import pytest

from quarterdeck.weights.progress import Progress, size_text


@pytest.mark.parametrize(
    ("progress", "text"),
    [
        (Progress(), "asking the hub"),
        (Progress(1_190_000_000, 3_500_000_000, 88e6), "downloading 34 % (1.2 GB of 3.5 GB, 88.0 MB/s)"),
        (Progress(3_499_999_999, 3_500_000_000), "downloading 99 % (3.5 GB of 3.5 GB)"),
        (Progress(10, 10), "downloading 100 % (10 B of 10 B)"),
    ],
)
def test_progress_as_text(progress: Progress, text: str) -> None:
    assert progress.text() == text


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 B"), (999, "999 B"), (1500, "2 kB"), (999_999, "1.0 MB"), (123_456_789, "123 MB")]
)
def test_sizes_in_decimal_units(size: int, text: str) -> None:
    assert size_text(size) == text


def test_the_time_left_is_known_once_there_is_a_rate() -> None:
    assert Progress(50, 100, 10).seconds_left == 5
    assert Progress(50, 100).seconds_left is None
