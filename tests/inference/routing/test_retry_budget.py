"""Retries never add more than a fifth to a route's load."""

from hypothesis import given
from hypothesis import strategies as st

from quarterdeck.inference.routing.retry_budget import MAX_SAVED, RATIO, RESERVE, RESERVE_SECONDS, RetryBudget


def spent(budget: RetryBudget, times: int, now: float = 0.0) -> int:
    return sum(budget.spend(now) for _ in range(times))


@given(st.lists(st.booleans(), max_size=500))
def test_retries_are_at_most_a_fifth_of_the_requests_and_the_reserve(wants: list[bool]) -> None:
    """`wants`: whether a request would be retried."""
    budget = RetryBudget(0.0)
    retries = 0
    for wanted in wants:
        budget.earn()
        retries += wanted and budget.spend(0.0)
    assert retries <= RATIO * len(wants) + RESERVE


def test_an_outage_gets_a_fifth() -> None:
    budget = RetryBudget(0.0)
    spent(budget, 100)
    retries = 0
    for _ in range(1000):
        budget.earn()
        retries += budget.spend(0.0)
    assert abs(retries - 200) <= 1


def test_a_quiet_hour_does_not_pay_for_a_storm() -> None:
    budget = RetryBudget(0.0)
    for _ in range(100_000):
        budget.earn()
    assert spent(budget, 1000) <= MAX_SAVED + 1


def test_the_reserve_comes_back_with_time() -> None:
    budget = RetryBudget(0.0)
    assert spent(budget, 100) == RESERVE
    assert spent(budget, 100, RESERVE_SECONDS / 2) == RESERVE / 2
    assert spent(budget, 100, 10 * RESERVE_SECONDS) == RESERVE
