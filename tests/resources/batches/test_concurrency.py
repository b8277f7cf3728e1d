"""The number of requests at once grows while they succeed, and halves when there is no room."""

from hypothesis import given
from hypothesis import strategies as st

from quarterdeck.resources.batches.concurrency import CALM_SECONDS, PAUSE_SECONDS, START, Concurrency


def test_it_doubles_with_each_round_while_there_is_no_refusal() -> None:
    concurrency = Concurrency(64)
    assert concurrency.limit == START
    for _ in range(START):
        concurrency.succeeded(1.5)
    assert concurrency.limit == 2 * START
    for _ in range(1000):
        concurrency.succeeded(1.5)
    assert concurrency.limit == 64


def test_after_a_refusal_it_halves_and_grows_by_one_with_each_round_for_a_while() -> None:
    concurrency = Concurrency(64)
    for _ in range(1000):
        concurrency.succeeded(1.5)
    concurrency.refused(1.0)
    assert concurrency.limit == 32
    for _ in range(33):
        concurrency.succeeded(1.5)
    assert concurrency.limit == 33
    for _ in range(10):
        concurrency.succeeded(1.0 + CALM_SECONDS)
    assert concurrency.limit == 43


def test_refusals_of_one_moment_count_once() -> None:
    concurrency = Concurrency(8)
    for _ in range(100):
        concurrency.refused(1.0)
    assert concurrency.limit == 4
    concurrency.refused(1.0 + PAUSE_SECONDS)
    assert concurrency.limit == 2


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 100))), st.integers(1, 1024))
def test_it_stays_within_one_and_the_most(events: list[tuple[bool, float]], most: int) -> None:
    concurrency = Concurrency(most)
    for is_success, now in events:
        if is_success:
            concurrency.succeeded(1.5)
        else:
            concurrency.refused(now)
        assert 1 <= concurrency.limit <= most


def test_a_smaller_most_holds_at_once() -> None:
    concurrency = Concurrency(64)
    concurrency.most = 2
    assert concurrency.limit == 2
