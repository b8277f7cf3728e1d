"""An endpoint that fails is ejected, longer each time; one probe finds out whether it works again."""

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from quarterdeck.inference.endpoints.circuit_breaker import (
    FAILURES_TO_OPEN,
    MAX_OPEN_SECONDS,
    OPEN_SECONDS,
    PROBE_SECONDS,
    CircuitBreaker,
)


def fail(breaker: CircuitBreaker, now: float = 100.0, siblings: Sequence[CircuitBreaker] = (), times: int = 3) -> None:
    for _ in range(times):
        breaker.record_failure(now, siblings)


def test_an_endpoint_that_fails_again_and_again_is_ejected() -> None:
    breaker = CircuitBreaker()
    fail(breaker, times=FAILURES_TO_OPEN - 1)
    assert breaker.is_offered(100.0)
    assert not breaker.is_ejected(100.0)
    fail(breaker, times=1)
    assert not breaker.is_offered(100.0)
    assert breaker.is_ejected(100.0)
    assert breaker.open_until == 100.0 + OPEN_SECONDS


def test_failures_that_are_few_and_not_in_a_row_do_not_open_it() -> None:
    breaker = CircuitBreaker()
    for number in range(100):
        breaker.record_failure(100.0) if number % 4 == 0 else breaker.record_success()
    assert breaker.is_offered(100.0)


def test_failures_in_most_calls_open_it_though_never_three_in_a_row() -> None:
    breaker = CircuitBreaker()
    for number in range(60):
        breaker.record_success() if number % 3 == 2 else breaker.record_failure(100.0)
    assert not breaker.is_offered(100.0)


def test_half_open_it_admits_one_probe() -> None:
    breaker = CircuitBreaker()
    fail(breaker)
    later = breaker.open_until
    assert breaker.is_offered(later)
    breaker.begin_probe(later)
    assert not breaker.is_offered(later)
    assert not breaker.is_ejected(later), "it is being tried"
    assert breaker.is_offered(later + PROBE_SECONDS), "the probe had no outcome: another may follow"


def test_a_successful_probe_closes_it() -> None:
    breaker = CircuitBreaker()
    fail(breaker)
    breaker.begin_probe(breaker.open_until)
    breaker.record_success()
    assert breaker.is_offered(100.0)
    assert (breaker.failures, breaker.open_until, breaker.failure_share) == (0, 0.0, 0.0)


def test_an_answer_to_a_request_from_before_it_opened_does_not_close_it() -> None:
    breaker = CircuitBreaker()
    fail(breaker)
    breaker.record_success()
    assert not breaker.is_offered(100.0)


def test_half_open_one_failure_opens_it_again_and_for_longer() -> None:
    breaker = CircuitBreaker()
    fail(breaker)
    seconds = [OPEN_SECONDS]
    for _ in range(8):
        now = breaker.open_until
        breaker.record_failure(now)
        seconds.append(breaker.open_until - now)
    assert seconds == [min(OPEN_SECONDS * 2**n, MAX_OPEN_SECONDS) for n in range(9)]


def test_failures_of_requests_from_before_it_opened_do_not_prolong_it() -> None:
    breaker = CircuitBreaker()
    fail(breaker)
    until = breaker.open_until
    fail(breaker, 101.0, times=50)
    assert breaker.open_until == until


def test_after_a_long_time_without_failures_the_first_duration_counts_again() -> None:
    breaker = CircuitBreaker()
    fail(breaker)
    breaker.record_failure(breaker.open_until)
    breaker.begin_probe(breaker.open_until)
    breaker.record_success()
    now = 10_000.0
    fail(breaker, now)
    assert breaker.open_until == now + OPEN_SECONDS


@given(st.lists(st.tuples(st.integers(0, 6), st.booleans()), max_size=200))
def test_errors_eject_no_more_than_half_unless_all_fail(events: list[tuple[int, bool]]) -> None:
    breakers = [CircuitBreaker() for _ in range(7)]
    for number, is_answered in events:
        if is_answered:
            breakers[number].record_success()
        else:
            breakers[number].record_failure(100.0, breakers)
        assert sum(each.open_until > 0 for each in breakers) <= 3


def test_the_last_one_that_answers_badly_is_ejected_as_well_where_all_others_are() -> None:
    one, other = CircuitBreaker(), CircuitBreaker()
    fail(one, siblings=[one, other])
    fail(other, siblings=[one, other])
    assert not one.is_offered(100.0)
    assert not other.is_offered(100.0)


def test_endpoints_that_can_not_be_reached_are_ejected_however_many_they_are() -> None:
    breakers = [CircuitBreaker() for _ in range(5)]
    for each in breakers[:4]:
        for _ in range(3):
            each.record_failure(100.0, breakers, was_reached=False)
    assert [each.is_offered(100.0) for each in breakers] == [False] * 4 + [True]


def test_a_failed_health_check_ejects_until_one_succeeds() -> None:
    breaker = CircuitBreaker()
    breaker.record_health(is_alive=False)
    assert breaker.is_ejected(0.0)
    assert not breaker.is_offered(0.0)
    breaker.record_health(is_alive=True)
    assert breaker.is_offered(0.0)


def test_an_endpoint_that_is_full_is_left_alone_for_as_long_as_it_says() -> None:
    breaker = CircuitBreaker()
    breaker.record_refusal(100.0, 7.0)
    assert breaker.is_resting(106.9)
    assert not breaker.is_offered(106.9)
    assert breaker.is_offered(107.0)
    assert breaker.failures == breaker.ejections == 0


def test_an_endpoint_that_is_full_and_does_not_say_how_long_rests_longer_each_time() -> None:
    breaker, now, rests = CircuitBreaker(), 100.0, []
    for _ in range(8):
        breaker.record_refusal(now, None)
        breaker.record_refusal(now, None)  # a request that was on its way
        rests.append(breaker.rests_until - now)
        now = breaker.rests_until
    assert rests == [1, 2, 4, 8, 16, 30, 30, 30]
    breaker.record_success()
    breaker.record_refusal(now, None)
    assert breaker.rests_until - now == 1


def test_a_rest_of_no_time_is_a_second() -> None:
    breaker = CircuitBreaker()
    breaker.record_refusal(100.0, 0.0)
    assert breaker.rests_until == 101.0


def test_no_rest_lasts_for_ever() -> None:
    breaker = CircuitBreaker()
    breaker.record_refusal(0.0, 1e9)
    assert breaker.rests_until == MAX_OPEN_SECONDS
