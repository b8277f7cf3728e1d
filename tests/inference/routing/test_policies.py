"""The next request goes to the least loaded endpoint, or to the one that has its prompt cached."""

from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.inference.making import an_endpoint

from quarterdeck.inference.endpoints.endpoint import Endpoint
from quarterdeck.inference.routing.affinity import mixed
from quarterdeck.inference.routing.policies import (
    Affinity,
    last_resort,
    least_load,
    least_loaded,
    pick,
    power_of_two,
    weighted,
)

DICE = Random(7).random


def endpoints(*tokens: int, **fields: int) -> list[Endpoint]:
    return [an_endpoint(f"e#{number}", tokens=each, **fields) for number, each in enumerate(tokens)]


def test_the_least_loaded_is_picked_by_tokens_and_not_by_requests() -> None:
    few_long, many_short = an_endpoint("long", requests=1), an_endpoint("short", requests=10)
    few_long.load.tokens, many_short.load.tokens = 100_000, 5_000
    assert least_loaded([few_long, many_short], 100, 0.0, ()) is many_short


def test_who_can_run_more_is_given_more() -> None:
    small, large = an_endpoint("small", max_running=4), an_endpoint("large", max_running=64)
    small.load.tokens, large.load.tokens = 100, 1000
    assert least_loaded([small, large], 100, 0.0, ()) is large


def test_the_first_is_picked_where_all_are_equal() -> None:
    equal = endpoints(0, 0, 0)
    assert least_loaded(equal, 100, 0.0, ()) is equal[0]


def test_one_that_was_tried_is_not_tried_again() -> None:
    one, other = endpoints(0, 50)
    assert least_loaded([one, other], 100, 0.0, [one]) is other
    assert least_loaded([one, other], 100, 0.0, [one, other]) is None


def test_one_that_failed_just_now_is_not_taken_for_idle() -> None:
    failed, busy = an_endpoint("failed", avoided_until=200.0), an_endpoint("busy", tokens=100)
    assert least_loaded([failed, busy], 100, 0.0, ()) is busy


def test_a_failure_is_forgotten_after_a_while() -> None:
    failed, busy = an_endpoint("failed", avoided_until=5.0, failures=2), an_endpoint("busy", tokens=100)
    assert least_loaded([busy, failed], 100, 6.0, ()) is failed


def test_one_that_has_rested_gets_the_next_request_and_no_other() -> None:
    idle, rested = an_endpoint("idle"), an_endpoint("rested", open_until=10.0, tokens=100)
    assert least_loaded([idle, rested], 100, 11.0, ()) is rested
    rested.breaker.probed_until = 21.0
    assert least_loaded([idle, rested], 100, 11.0, ()) is idle
    rested.breaker.probed_until = 0.0
    assert least_loaded([idle, rested], 100, 11.0, [rested]) is idle


def test_one_that_rests_is_asked_only_where_nobody_else_is() -> None:
    resting, busy = an_endpoint("resting", open_until=10.0), an_endpoint("busy", tokens=10**9)
    assert pick([resting, busy], 5.0) is busy
    assert pick([resting], 5.0) is resting
    assert pick([], 5.0) is None


def test_the_last_resort_is_alive_and_has_rested_longest() -> None:
    dead, short, long = an_endpoint("d", is_alive=False), an_endpoint("s", open_until=9.0), an_endpoint("l")
    long.breaker.open_until = 8.0
    assert last_resort([dead, short, long], ()) is long
    assert last_resort([dead, short, long], [long]) is short
    assert last_resort([dead], ()) is dead
    assert last_resort([dead], [dead]) is None


def test_among_many_one_of_the_less_loaded_is_drawn() -> None:
    many = endpoints(*range(0, 100_000, 100))
    drawn = [many.index(found) for _ in range(500) if (found := least_load(many, 100, 0.0, (), DICE))]
    assert len(drawn) == 500
    assert sum(drawn) / len(drawn) < 160, "the best of eight of a thousand is the 111th on average"


def test_where_all_that_were_drawn_are_away_the_others_are_looked_at() -> None:
    many = endpoints(*[0] * 1000, open_until=10)
    many[777].breaker.open_until = 0.0
    for policy in (least_load, power_of_two, weighted):
        assert policy(many, 100, 1.0, (), DICE) is many[777]


@given(st.lists(st.integers(0, 1000), min_size=3, max_size=12), st.randoms(use_true_random=False))
def test_the_better_of_two_is_never_the_worst(tokens: list[int], random: Random) -> None:
    found = power_of_two(candidates := endpoints(*tokens), 10, 0.0, (), random.random)
    assert found is not None
    assert found.load.tokens < max(tokens) or tokens.count(max(tokens)) > 1 or found is None
    assert found in candidates


def test_the_better_of_two_spreads_what_is_alike() -> None:
    alike = endpoints(0, 0, 0, 0)
    assert {found.id for _ in range(200) if (found := power_of_two(alike, 10, 0.0, (), DICE))} == {e.id for e in alike}


@settings(max_examples=20)
@given(st.lists(st.integers(1, 50), min_size=1, max_size=6), st.integers(0, 2**32))
def test_weights_converge(weights: list[int], seed: int) -> None:
    random = Random(seed).random
    candidates = [an_endpoint(f"e#{number}", max_running=weight) for number, weight in enumerate(weights)]
    counts = dict.fromkeys((each.id for each in candidates), 0)
    for _ in range(4000):
        found = weighted(candidates, 1, 0.0, (), random)
        assert found is not None
        counts[found.id] += 1
    for each, weight in zip(candidates, weights, strict=True):
        assert abs(counts[each.id] / 4000 - weight / sum(weights)) < 0.05


# affinity

KEYS = [mixed(number) for number in range(2000)]


def test_equal_keys_go_to_one_endpoint() -> None:
    affinity = Affinity(endpoints(0, 0, 0, 0))
    for key in KEYS[:50]:
        assert len({id(affinity.choose(key, 1.25, 10, 0.0, ())) for _ in range(5)}) == 1


def test_one_that_is_away_leaves_its_keys_to_others_and_no_other_key_moves() -> None:
    candidates = endpoints(0, 0, 0, 0)
    affinity = Affinity(candidates)
    before = [affinity.choose(key, 1.25, 10, 0.0, ()) for key in KEYS]
    candidates[2].breaker.open_until = 10.0
    after = [affinity.choose(key, 1.25, 10, 1.0, ()) for key in KEYS]
    assert candidates[2] not in after
    assert all(one is other for one, other in zip(before, after, strict=True) if one is not candidates[2])


def test_one_that_was_tried_is_left_out() -> None:
    candidates = endpoints(0, 0, 0)
    affinity = Affinity(candidates)
    first = affinity.choose(KEYS[0], 1.25, 10, 0.0, ())
    assert first is not None
    assert affinity.choose(KEYS[0], 1.25, 10, 0.0, [first]) not in (first, None)
    assert affinity.choose(KEYS[0], 1.25, 10, 0.0, candidates) is None


@settings(max_examples=40)
@given(
    st.integers(2, 12),
    st.lists(st.tuples(st.integers(0, 3), st.integers(1, 5000)), min_size=50, max_size=300),
    st.floats(1.0, 3.0),
)
def test_no_endpoint_is_given_more_while_it_holds_more_than_its_bound(
    count: int, asked: list[tuple[int, int]], bound: float
) -> None:
    """With few keys, affinity alone would overload an endpoint."""
    candidates = endpoints(*[0] * count)
    affinity = Affinity(candidates)
    for key, tokens in asked:
        mean = sum(each.load.tokens for each in candidates) / count
        found = affinity.choose(mixed(key), bound, tokens, 0.0, ())
        assert found is not None
        assert found.load.tokens <= bound * mean * (1 + 1e-9)
        found.load.begin(tokens)


def test_the_bound_holds_among_many_as_well() -> None:
    candidates = endpoints(*[0] * 200)
    affinity = Affinity(candidates)
    for number in range(4000):
        found = affinity.choose(KEYS[number % 3], 1.25, 100, 0.0, ())
        assert found is not None
        found.load.begin(100)
    mean = 4000 * 100 / 200
    assert max(each.load.tokens for each in candidates) <= 1.25 * mean + 100


def test_where_nobody_is_within_the_bound_the_least_loaded_is_asked() -> None:
    candidates = endpoints(500, 400)
    affinity = Affinity(candidates)
    assert affinity.choose(KEYS[0], 0.1, 10, 0.0, ()) is candidates[1]
