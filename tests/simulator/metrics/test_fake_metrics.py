import pytest

from quarterdeck.simulator.metrics import fake_metrics


@pytest.mark.parametrize(
    ("function", "values"),
    [
        ("oscillate:0:10:4s", [0, 5, 10, 5]),
        ("ramp:0:8:4s", [0, 2, 4, 6]),
        ("rampreset:0:8:4s", [0, 2, 4, 6]),
        ("squarewave:1:9:4s", [1, 1, 9, 9]),
    ],
)
def test_functions_of_time(function: str, values: list[float]) -> None:
    assert [fake_metrics.value_at(function, second) for second in range(4)] == pytest.approx(values)
    assert fake_metrics.value_at("ramp:0:8:4s", 100) == 8
    assert fake_metrics.value_at("rampreset:0:8:4s", 100) == 0
