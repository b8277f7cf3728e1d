"""A verdict where the requests tell, a number of requests where they don't yet, and a guard that is not fooled."""

from random import Random
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quarterdeck.resources.prompts.comparison import Comparison, Sample, broken_bound, compare, comparison_object
from quarterdeck.settings.prompts import RolloutGuard


def sample(version: int, requests: int, *, errors: float = 0.02, cost: float = 1.0, seconds: float = 1.0) -> Sample:
    """Requests with this share of errors and these means; costs and durations are spread by half."""
    random = Random(version * 1000 + requests)
    failed = round(requests * errors)
    spread = [random.uniform(0.5, 1.5) for _ in range(requests - failed)]
    return Sample(version, requests, failed, [cost * x for x in spread], [seconds * x for x in reversed(spread)])


def verdicts(found: Comparison) -> dict[str, str]:
    return {measure.name: measure.verdict for measure in found.measures}


def test_equal_versions_can_not_be_told_apart() -> None:
    found = compare(sample(1, 500), sample(2, 500))
    assert (found.verdict, set(verdicts(found).values())) == ("unclear", {"unclear"})
    assert found.requests_to_tell is not None


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"errors": 0.2}, "error_rate"),
        ({"cost": 1.5}, "cost"),
        ({"seconds": 1.5}, "latency_mean"),
        ({"seconds": 1.5}, "latency_p50"),
        ({"seconds": 1.5}, "latency_p95"),
    ],
)
def test_a_difference_is_worse_one_way_and_better_the_other(change: dict[str, Any], name: str) -> None:
    there, back = compare(sample(1, 500), sample(2, 500, **change)), compare(sample(1, 500, **change), sample(2, 500))
    assert (there.verdict, verdicts(there)[name]) == ("worse", "worse")
    assert (back.verdict, verdicts(back)[name]) == ("better", "better")
    assert (there.requests_to_tell, back.requests_to_tell) == (None, None)


def test_worse_in_one_measure_is_worse() -> None:
    found = compare(sample(1, 500), sample(2, 500, cost=0.5, seconds=2.0))
    assert (verdicts(found)["cost"], found.verdict) == ("better", "worse")


def test_higher_scores_are_better() -> None:
    old, new = (
        Sample(version, 100, 0, [], [], {"thumbs": [1.0] * up + [0.0] * (100 - up)})
        for version, up in ((1, 50), (2, 80))
    )
    assert compare(old, new).verdict == "better"
    assert compare(new, old).verdict == "worse"


def test_how_many_requests_would_tell_is_about_right() -> None:
    few = compare(sample(1, 60, cost=1.0), sample(2, 60, cost=1.02))
    cost = next(each for each in few.measures if each.name == "cost")
    assert cost.verdict == "unclear"
    assert cost.requests_to_tell is not None
    many = cost.requests_to_tell * 2
    assert verdicts(compare(sample(1, many, cost=1.0), sample(2, many, cost=1.1)))["cost"] == "worse"


@given(st.integers(0, 3), st.integers(0, 3))
def test_few_requests_never_tell_and_are_shown_as_json(first: int, second: int) -> None:
    found = compare(sample(1, first), sample(2, second, cost=9.0))
    assert verdicts(found)["error_rate"] == "unclear"
    shown = msgspec.json.decode(msgspec.json.encode(comparison_object(found)))
    assert [each["name"] for each in shown["measures"]][:2] == ["error_rate", "cost"]
    if not first:
        assert shown["measures"][1]["difference"] == {
            "value": pytest.approx(shown["measures"][1]["difference"]["value"]),
            "low": None,
            "high": None,
        }


def guard(**fields: Any) -> RolloutGuard:
    return RolloutGuard.model_validate(fields)


@pytest.mark.parametrize(
    ("bound", "candidate", "words"),
    [
        (
            {"max_error_rate": 0.1},
            sample(2, 60, errors=0.5),
            "max_error_rate 0.1: 30 of 60 requests",
        ),
        ({"max_error_rate_increase": 0.05}, sample(2, 60, errors=0.5), "30 of 60 requests of version 2 failed, and 10"),
        ({"max_cost_ratio": 1.5}, sample(2, 60, cost=2.0), "max_cost_ratio 1.5: a request of version 2 took"),
        ({"max_latency_ratio": 1.5}, sample(2, 60, seconds=2.0), "max_latency_ratio 1.5"),
    ],
)
def test_a_broken_bound_is_named(bound: dict[str, float], candidate: Sample, words: str) -> None:
    baseline = sample(1, 500)
    assert words in str(broken_bound(guard(**bound), baseline, candidate))
    assert broken_bound(guard(**bound), baseline, sample(2, 60)) is None


@pytest.mark.parametrize("bound", ["max_error_rate", "max_error_rate_increase", "max_cost_ratio", "max_latency_ratio"])
def test_too_few_requests_break_nothing(bound: str) -> None:
    bad = sample(2, 49, errors=0.9, cost=9.0, seconds=9.0)
    assert broken_bound(guard(**{bound: 1.0 if "ratio" in bound else 0.1}), sample(1, 500), bad) is None


def test_a_bound_that_is_reached_by_chance_is_not_broken() -> None:
    assert broken_bound(guard(max_error_rate=0.1), sample(1, 500), sample(2, 60, errors=0.15)) is None


def test_a_guard_that_looks_again_and_again_rarely_errs() -> None:
    random, broken = Random(11), 0
    for _ in range(200):
        errors = 0
        for count in range(1, 1001):
            errors += random.random() < 0.05
            if count % 50 == 0:
                found = Sample(2, count, errors, [], [])
                if broken_bound(guard(max_error_rate=0.05), Sample(1, 0, 0, [], []), found) is not None:
                    broken += 1
                    break
    assert broken <= 8
