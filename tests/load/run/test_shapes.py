"""Load over time."""

import pytest

from quarterdeck.load.run.shapes import Diurnal, Saturation, Soak, Spike, Steps


def test_steps_follow_one_another_and_know_their_length() -> None:
    shape = Steps(levels=(10, 20, 40), each=30)
    assert shape.length == 90
    assert [shape.at(seconds) for seconds in (0, 29.9, 30, 60, 95)] == [10, 10, 20, 40, 40]


def test_a_spike_is_over_when_it_is_over() -> None:
    shape = Spike(base=5, peak=50, start=30, lasts=10)
    assert [shape.at(seconds) for seconds in (29.9, 30, 39.9, 40)] == [5, 50, 50, 5]


def test_a_soak_is_reached_slowly_and_held() -> None:
    shape = Soak(level=50, ramp=60)
    assert [shape.at(seconds) for seconds in (0, 30, 60, 3000)] == [0, 25, 50, 50]


def test_a_day_begins_at_night() -> None:
    shape = Diurnal(low=2, high=40, period=600)
    assert [shape.at(seconds) for seconds in (0, 300, 600)] == pytest.approx([2, 40, 2])


def test_saturation_rises_by_its_factor_up_to_the_most() -> None:
    shape = Saturation(start=10, factor=2, each=5, most=70)
    assert shape.levels == (10, 20, 40, 70)
    assert shape.length == 20
    assert [shape.at(seconds) for seconds in (0, 5, 19)] == [10, 20, 70]
