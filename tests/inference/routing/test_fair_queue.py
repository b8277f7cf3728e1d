"""Waiting requests are served in a fair order: by priority, by the teams' weights, and none starves."""

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from quarterdeck.inference.routing.fair_queue import LONGEST_FIRST, FairQueue, Ticket

TEAMS = ("a", "b", "c")


def drained(queue: FairQueue) -> list[Ticket]:
    return list(iter(queue.take, None))


def test_one_teams_requests_go_in_the_order_they_came() -> None:
    queue = FairQueue({})
    tickets = [queue.join("a", 0, 10) for _ in range(30)]
    assert drained(queue) == tickets
    assert (len(queue), queue.take()) == (0, None)


def test_a_team_that_sends_little_does_not_wait_for_one_that_sends_much() -> None:
    queue = FairQueue({})
    for _ in range(100):
        queue.join("noisy", 0, 10)
    quiet = queue.join("quiet", 0, 10)
    assert quiet in [queue.take() for _ in range(2)]


def test_a_long_request_counts_as_many_short_ones() -> None:
    queue = FairQueue({})
    for _ in range(20):
        queue.join("long", 0, 1000)
        queue.join("short", 0, 10)
    first = Counter(ticket.team for ticket in drained(queue)[:14])
    assert first["short"] >= 11


def test_the_higher_priority_goes_first() -> None:
    queue = FairQueue({})
    low, high = queue.join("a", 0, 1), queue.join("b", 9, 1000)
    assert drained(queue) == [high, low]


def test_whoever_left_is_passed_over() -> None:
    queue = FairQueue({})
    tickets = [queue.join("a", number % 3, 10) for number in range(12)]
    for ticket in tickets[::2]:
        queue.leave(ticket)
        queue.leave(ticket)
    assert len(queue) == 6
    assert set(drained(queue)) == set(tickets[1::2])


def test_those_who_left_do_not_pile_up() -> None:
    queue = FairQueue({})
    queue.join("a", 0, 10)
    for _ in range(10_000):
        queue.leave(queue.join("b", 0, 10))
    assert sum(len(level.heap) for level in queue._levels.values()) < 500


@settings(max_examples=60)
@given(st.lists(st.tuples(st.sampled_from(TEAMS), st.integers(0, 9), st.integers(1, 10**6)), max_size=120))
def test_everybody_goes_once_and_nobody_starves(asked: list[tuple[str, int, int]]) -> None:
    """The request that has waited longest is served with the eighth place at the latest."""
    queue = FairQueue({})
    waiting = [queue.join(*each) for each in asked]
    went: list[Ticket] = []
    while waiting:
        oldest = waiting[0]
        for _ in range(min(LONGEST_FIRST, len(queue))):
            ticket = queue.take()
            assert ticket is not None
            waiting.remove(ticket)
            went.append(ticket)
        assert oldest not in waiting
    assert len(set(went)) == len(asked)


@settings(max_examples=25)
@given(st.tuples(*[st.integers(1, 8)] * 3), st.integers(1, 500))
def test_weights_are_honoured_among_those_who_always_have_somebody_waiting(
    weights: tuple[int, int, int], cost: int
) -> None:
    queue = FairQueue(dict(zip(TEAMS, weights, strict=True)))
    for team in TEAMS:
        for _ in range(10):
            queue.join(team, 0, cost)
    served_tokens: Counter[str] = Counter()
    for _ in range(2000):
        ticket = queue.take()
        assert ticket is not None
        served_tokens[ticket.team] += ticket.cost
        queue.join(ticket.team, 0, cost)
    total = sum(served_tokens.values())
    for team, weight in zip(TEAMS, weights, strict=True):
        # A team whose share is below an eighth may get more, by waiting time alone.
        assert abs(served_tokens[team] / total - weight / sum(weights)) < 0.08
