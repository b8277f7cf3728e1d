"""Who fails rests, longer each time; one request finds out whether it is well again."""

from hypothesis import given
from hypothesis import strategies as st
from tests.inference.making import an_endpoint

from quarterdeck.inference.endpoints.circuit_breaker import (
    FAILURES_TO_REST,
    LONGEST_REST_SECONDS,
    PROBE_SECONDS,
    REST_SECONDS,
    begin_probe,
    is_offered,
    report_failure,
    report_success,
)
from quarterdeck.inference.endpoints.sources import Endpoint


def fail(endpoint: Endpoint, now: float = 100.0, others: list[Endpoint] | None = None, times: int = 3) -> None:
    for _ in range(times):
        report_failure(endpoint, now, others or [])


def test_an_endpoint_that_fails_again_and_again_rests() -> None:
    endpoint = an_endpoint()
    fail(endpoint, times=FAILURES_TO_REST - 1)
    assert is_offered(endpoint, 100.0)
    fail(endpoint, times=1)
    assert not is_offered(endpoint, 100.0)
    assert endpoint.rests_until == 100.0 + REST_SECONDS


def test_failures_that_are_few_and_not_in_a_row_are_no_reason_to_rest() -> None:
    endpoint = an_endpoint()
    for number in range(100):
        report_failure(endpoint, 100.0) if number % 4 == 0 else report_success(endpoint)
    assert is_offered(endpoint, 100.0)


def test_one_that_fails_most_of_the_time_rests_though_never_thrice_in_a_row() -> None:
    endpoint = an_endpoint()
    for number in range(60):
        report_success(endpoint) if number % 3 == 2 else report_failure(endpoint, 100.0)
    assert not is_offered(endpoint, 100.0)


def test_when_the_rest_is_over_one_request_may_try_it() -> None:
    endpoint = an_endpoint()
    fail(endpoint)
    later = endpoint.rests_until
    assert is_offered(endpoint, later)
    begin_probe(endpoint, later)
    assert not is_offered(endpoint, later)
    assert is_offered(endpoint, later + PROBE_SECONDS), "the one who tried said nothing: another may"


def test_a_success_closes_the_matter() -> None:
    endpoint = an_endpoint()
    fail(endpoint)
    begin_probe(endpoint, endpoint.rests_until)
    report_success(endpoint)
    assert is_offered(endpoint, 100.0)
    assert (endpoint.failures, endpoint.rests_until, endpoint.failure_share) == (0, 0.0, 0.0)


def test_an_answer_to_a_request_from_before_the_rest_does_not_end_it() -> None:
    endpoint = an_endpoint()
    fail(endpoint)
    report_success(endpoint)
    assert not is_offered(endpoint, 100.0)


def test_one_failure_of_a_half_open_one_is_enough_and_each_rest_is_longer() -> None:
    endpoint = an_endpoint()
    fail(endpoint)
    rests = [REST_SECONDS]
    for _ in range(8):
        now = endpoint.rests_until
        report_failure(endpoint, now)
        rests.append(endpoint.rests_until - now)
    assert rests == [min(REST_SECONDS * 2**n, LONGEST_REST_SECONDS) for n in range(9)]


def test_failures_of_requests_that_had_begun_before_make_no_rest_longer() -> None:
    endpoint = an_endpoint()
    fail(endpoint)
    until = endpoint.rests_until
    fail(endpoint, 101.0, times=50)
    assert endpoint.rests_until == until


def test_what_is_long_ago_is_forgotten() -> None:
    endpoint = an_endpoint()
    fail(endpoint)
    report_failure(endpoint, endpoint.rests_until)
    begin_probe(endpoint, endpoint.rests_until)
    report_success(endpoint)
    now = 10_000.0
    fail(endpoint, now)
    assert endpoint.rests_until == now + REST_SECONDS


@given(st.lists(st.tuples(st.integers(0, 6), st.booleans()), max_size=200))
def test_errors_put_no_more_than_half_to_rest_unless_all_fail(events: list[tuple[int, bool]]) -> None:
    endpoints = [an_endpoint(f"e#{number}") for number in range(7)]
    for number, is_well in events:
        if is_well:
            report_success(endpoints[number])
        else:
            report_failure(endpoints[number], 100.0, endpoints)
        resting = sum(each.rests_until > 0 for each in endpoints)
        assert resting <= 3


def test_the_last_that_answers_badly_rests_as_well_where_all_others_do() -> None:
    one, other = an_endpoint("one"), an_endpoint("other")
    fail(one, others=[one, other])
    fail(other, others=[one, other])
    assert not is_offered(one, 100.0)
    assert not is_offered(other, 100.0)


def test_those_that_can_not_be_reached_rest_however_many_they_are() -> None:
    endpoints = [an_endpoint(f"e#{number}") for number in range(5)]
    for each in endpoints[:4]:
        for _ in range(3):
            report_failure(each, 100.0, endpoints, reached=False)
    assert [is_offered(each, 100.0) for each in endpoints] == [False] * 4 + [True]


def test_a_dead_one_is_not_offered() -> None:
    endpoint = an_endpoint(is_alive=False)
    assert not is_offered(endpoint, 0.0)
