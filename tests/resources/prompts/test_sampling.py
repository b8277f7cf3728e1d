"""Which requests count for a version, and whose fault a refusal is."""

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quarterdeck.resources.prompts.comparison import broken_bound
from quarterdeck.resources.prompts.sampling import Observed, samples_of
from quarterdeck.settings.prompts import RolloutGuard
from quarterdeck.store.prompt_results import Result

GUARD = RolloutGuard(max_error_rate=0.2, min_requests=50)


def results(count: int, *, refused: int = 0, failed: int = 0, key: str = "app", **fields: Any) -> list[Result]:
    """Requests of one key, of which the first were refused by the engine (400) and the next failed (502)."""
    base = {"id": "req", "user": None, "cache": "miss", "cost": Decimal(1), "started": 1.0, "ended": 2.0}
    made = []
    for n in range(count):
        status = 400 if n < refused else 502 if n < refused + failed else 200
        outcome = {"status": "ok" if status == 200 else "error", "http_status": status}
        made.append(Result(**(base | {"key": key} | outcome | fields)))
    return made


def errors(before: Sequence[Result], after: Sequence[Result]) -> tuple[int, int]:
    """Errors and requests of the candidate."""
    candidate = samples_of(Observed(1, before), Observed(2, after))[1]
    return candidate.errors, candidate.requests


def reason(before: Sequence[Result], after: Sequence[Result]) -> str | None:
    return broken_bound(GUARD, *samples_of(Observed(1, before), Observed(2, after)))


def test_one_client_with_a_fault_rolls_no_canary_back() -> None:
    others = [each for n in range(6) for each in results(10, key=f"app {n}")]
    sticky = others + results(40, refused=40, key="colleague")  # it meets the canary only
    assert errors(others, sticky) == (0, 60)
    assert reason(others, sticky) is None


def test_a_client_that_both_versions_refuse_counts_against_neither() -> None:
    before, after = results(500, refused=400), results(60, refused=50)
    baseline, candidate = samples_of(Observed(1, before), Observed(2, after))
    assert (baseline.errors, baseline.requests, candidate.errors, candidate.requests) == (0, 100, 0, 10)


def test_what_only_the_new_version_is_refused_for_counts() -> None:
    before, after = results(500, refused=5), results(60, refused=50)
    assert errors(before, after) == (50, 60)
    assert reason(before, after) == "max_error_rate 0.2: 50 of 60 requests of version 2 failed"


def test_refusals_of_most_callers_count_though_each_meets_one_version() -> None:
    before = [each for n in range(8) for each in results(10, key=f"old {n}")]
    after = [each for n in range(8) for each in results(10, refused=9 * (n < 5), key=f"new {n}")]
    assert errors(before, after) == (45, 80)


def test_users_of_one_key_are_callers_of_their_own() -> None:
    others = [each for n in range(6) for each in results(10, user=f"user {n}")]
    assert errors(others, others + results(40, refused=40, user="colleague")) == (0, 60)


def test_failures_of_engine_and_gateway_always_count() -> None:
    assert errors(results(100, failed=50), results(60, failed=30)) == (30, 60)


@pytest.mark.parametrize("other", [[], results(100)])
def test_an_engine_without_room_is_no_fault_of_a_version(other: list[Result]) -> None:
    assert errors(other, results(60, http_status=429, status="error")) == (0, 0)


def test_lost_requests_do_not_count_and_cancelled_ones_are_no_errors() -> None:
    after = results(10) + results(5, status="lost") + results(7, status="cancelled", http_status=499)
    candidate = samples_of(Observed(1, []), Observed(2, after))[1]
    assert (candidate.errors, candidate.requests, len(candidate.costs)) == (0, 17, 10)


@given(
    st.lists(st.tuples(st.integers(0, 4), st.sampled_from([200, 400, 404, 429, 502])), max_size=40),
    st.lists(st.tuples(st.integers(0, 4), st.sampled_from([200, 400, 404, 429, 502])), max_size=40),
)
def test_answers_and_failures_are_never_left_out(old: list[tuple[int, int]], new: list[tuple[int, int]]) -> None:
    def made(of: list[tuple[int, int]]) -> list[Result]:
        return [
            each
            for key, status in of
            for each in results(1, key=str(key), http_status=status, status="ok" if status == 200 else "error")
        ]

    for sample, of in zip(samples_of(Observed(1, made(old)), Observed(2, made(new))), (old, new), strict=True):
        failed, answered = (sum(status == wanted for _, status in of) for wanted in (502, 200))
        assert len(sample.costs) == answered
        assert failed <= sample.errors <= sample.requests - answered
        assert sample.requests <= sum(status != 429 for _, status in of)
