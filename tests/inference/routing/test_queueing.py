"""Requests wait for a bounded time, are granted each free place once, and leave no trace when they give up."""

import asyncio
import dataclasses
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.inference.bench import Listed
from tests.inference.making import an_endpoint, change, served
from tests.net.upstream import until

from quarterdeck.errors import RateLimitError, ServiceUnavailableError
from quarterdeck.inference.endpoints.endpoint import Endpoint
from quarterdeck.inference.routing.queueing import Queues
from quarterdeck.settings.live import Live
from quarterdeck.settings.routes import QueueConfig


class Waiting:
    """Queues over one endpoint that runs two at once."""

    def __init__(self, *endpoints: Endpoint, has_engine: bool = True, **config: Any) -> None:
        self.listed = Listed([*endpoints])
        self.config = QueueConfig(**({"max_waiting": 4, "max_wait_seconds": 30} | config))
        self.queues = Queues(self.listed, Live(self.config), lambda model: has_engine, tick_seconds=0.001)
        self.went: list[str] = []

    async def enter(
        self, team: str = "a", priority: int = 0, until: float = float("inf"), org: str = "default"
    ) -> None:
        await self.queues.enter(served(), org=org, team=team, priority=priority, tokens=10, until=until)
        self.went.append(team if org == "default" else f"{org}/{team}")
        self.listed.endpoints[0].load.begin(10)

    def leave(self) -> None:
        endpoint = self.listed.endpoints[0]
        endpoint.load.end(10)
        self.queues.released(endpoint)

    def task(self, *args: Any) -> "asyncio.Task[None]":
        return asyncio.get_running_loop().create_task(self.enter(*args))

    async def are_waiting(self, count: int) -> None:
        await until(lambda: self.queues.waiting() == ({"m": count} if count else {}))


@pytest.fixture
def waiting() -> Waiting:
    return Waiting(an_endpoint(max_running=2))


async def test_nobody_waits_where_there_is_room(waiting: Waiting) -> None:
    assert not waiting.queues.must_wait(served())
    await waiting.enter()
    await waiting.enter()
    assert waiting.queues.must_wait(served())
    assert waiting.queues.waiting() == {}


async def test_nobody_waits_where_the_file_says_nothing_of_it() -> None:
    waiting = Waiting(an_endpoint(max_running=1, requests=5), max_waiting=0)
    assert not waiting.queues.must_wait(served())
    await waiting.enter()


async def test_whoever_waits_goes_when_another_is_done(waiting: Waiting) -> None:
    await waiting.enter()
    await waiting.enter()
    tasks = [waiting.task(team) for team in ("b", "c")]
    await waiting.are_waiting(2)
    waiting.leave()
    await tasks[0]
    assert waiting.went[2:] == ["b"]
    waiting.leave()
    await tasks[1]
    assert waiting.queues.waiting() == {}


async def test_the_places_of_an_endpoint_that_rests_are_not_free() -> None:
    full, resting = an_endpoint("e#1", max_running=1), an_endpoint("e#2", max_running=5)
    waiting = Waiting(full, resting)
    resting.breaker.record_refusal(time.monotonic(), 0.05)
    await waiting.enter()
    assert waiting.queues.must_wait(served())
    task = waiting.task("b")
    await waiting.are_waiting(1)
    await task  # the rest is over
    full.breaker.record_refusal(time.monotonic(), 60)
    resting.breaker.record_refusal(time.monotonic(), 60)
    assert not waiting.queues.must_wait(served()), "where all rest, one of them is asked"


async def test_who_comes_later_does_not_overtake(waiting: Waiting) -> None:
    await waiting.enter()
    await waiting.enter()
    first = waiting.task("first")
    await waiting.are_waiting(1)
    waiting.leave()
    second = waiting.task("second")
    await first
    assert not second.done()
    waiting.leave()
    await second
    assert waiting.listed.endpoints[0].load.requests == 2


async def test_as_many_go_as_there_are_places(waiting: Waiting) -> None:
    await waiting.enter()
    await waiting.enter()
    tasks = [waiting.task() for _ in range(4)]
    await waiting.are_waiting(4)
    waiting.leave()
    waiting.leave()
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    await waiting.are_waiting(2)
    assert waiting.listed.endpoints[0].load.requests == 2
    waiting.leave()
    waiting.leave()
    await asyncio.gather(*tasks)


async def test_the_line_is_bounded(waiting: Waiting) -> None:
    await waiting.enter()
    await waiting.enter()
    tasks = [waiting.task() for _ in range(4)]
    await waiting.are_waiting(4)
    with pytest.raises(RateLimitError) as caught:
        await waiting.enter()
    assert (caught.value.status, caught.value.code) == (429, "queue_full")
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert waiting.queues.waiting() == {}


async def test_the_wait_is_bounded() -> None:
    waiting = Waiting(an_endpoint(max_running=1, requests=1), max_wait_seconds=0)
    with pytest.raises(ServiceUnavailableError) as caught:
        await waiting.enter()
    assert (caught.value.status, caught.value.code) == (503, "queue_timeout")
    assert waiting.queues.waiting() == {}


async def test_it_ends_with_the_request_at_the_latest(waiting: Waiting) -> None:
    await waiting.enter()
    await waiting.enter()
    with pytest.raises(ServiceUnavailableError):
        await waiting.enter(until=asyncio.get_running_loop().time())


async def test_a_place_given_to_one_who_has_just_left_is_the_next_ones(waiting: Waiting) -> None:
    await waiting.enter()
    await waiting.enter()
    gone, stays = waiting.task("gone"), waiting.task("stays")
    await waiting.are_waiting(2)
    waiting.leave()  # the place is granted ...
    gone.cancel()  # ... and its request is cancelled before it takes it
    await stays
    assert waiting.went[2:] == ["stays"]
    assert gone.cancelled()
    assert waiting.queues.waiting() == {}


async def test_one_who_leaves_just_before_is_passed_over(waiting: Waiting) -> None:
    await waiting.enter()
    await waiting.enter()
    gone, stays = waiting.task("gone"), waiting.task("stays")
    await waiting.are_waiting(2)
    gone.cancel()
    waiting.leave()
    await stays
    assert waiting.went[2:] == ["stays"]


async def test_an_endpoint_that_comes_is_noticed(waiting: Waiting) -> None:
    await waiting.enter()
    await waiting.enter()
    task = waiting.task("b")
    await waiting.are_waiting(1)
    waiting.listed.endpoints.insert(0, an_endpoint("new"))
    await task


# a model at zero


async def test_a_request_for_a_model_at_zero_is_held_until_an_endpoint_is_ready() -> None:
    waiting = Waiting(cold_wait_seconds=30, max_waiting=0)
    assert waiting.queues.must_wait(served())
    task = waiting.task("a")
    await waiting.are_waiting(1)
    waiting.listed.endpoints.append(an_endpoint("new"))
    await task
    assert waiting.queues.waiting() == {}


async def test_when_its_time_is_up_it_is_for_the_router_to_say_that_nobody_is_there() -> None:
    waiting = Waiting(cold_wait_seconds=0.001)
    await waiting.queues.enter(served(), team="a", priority=0, tokens=1, until=float("inf"))
    assert waiting.queues.waiting() == {}


async def test_the_held_are_bounded() -> None:
    waiting = Waiting(cold_wait_seconds=30, max_cold=1)
    task = waiting.task()
    await waiting.are_waiting(1)
    with pytest.raises(RateLimitError):
        await waiting.enter()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_model_that_nobody_will_start_is_not_waited_for() -> None:
    assert not Waiting(cold_wait_seconds=30, has_engine=False).queues.must_wait(served())
    assert not Waiting(cold_wait_seconds=0).queues.must_wait(served())


async def test_a_model_may_have_its_own_wait_for_its_first_endpoint() -> None:
    patient = dataclasses.replace(served(), cold_wait_seconds=30.0)
    impatient = dataclasses.replace(served(), cold_wait_seconds=0.0)
    assert Waiting(cold_wait_seconds=0, max_waiting=0).queues.must_wait(patient)
    assert not Waiting(cold_wait_seconds=30).queues.must_wait(impatient)


async def test_a_model_that_can_not_start_is_not_waited_for_any_longer() -> None:
    waiting = Waiting(cold_wait_seconds=30)
    task = waiting.task()
    await waiting.are_waiting(1)
    waiting.listed.reasons["m"] = "Its image can't be pulled."
    with pytest.raises(IndexError):  # it would go to the first endpoint, and there is none
        await task
    assert not waiting.queues.must_wait(served())


async def test_an_adapter_waits_until_an_endpoint_has_loaded_it() -> None:
    waiting = Waiting(an_endpoint(max_running=2), cold_wait_seconds=30)
    adapter = served("pirate", "m")
    assert waiting.queues.must_wait(adapter)
    task = asyncio.create_task(waiting.queues.enter(adapter, team="a", priority=0, tokens=1, until=float("inf")))
    await waiting.are_waiting(1)
    assert not waiting.queues.must_wait(served()), "its model does not wait"
    change(waiting.listed.endpoints[0], adapters=frozenset({"pirate"}))
    await task
    assert waiting.queues.waiting() == {}


async def test_the_first_request_for_a_model_without_endpoints_is_announced() -> None:
    waiting, models = Waiting(cold_wait_seconds=30), list[str]()
    waiting.queues.on_cold = models.append
    tasks = [waiting.task(), waiting.task()]
    await waiting.are_waiting(2)
    assert models == ["m"]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@settings(max_examples=30)
@given(st.lists(st.sampled_from(["enter", "leave", "cancel"]), max_size=60))
async def test_there_are_never_more_than_places_and_nobody_is_forgotten(events: list[str]) -> None:
    waiting = Waiting(an_endpoint(max_running=2), max_waiting=1000)
    endpoint = waiting.listed.endpoints[0]
    tasks: list[asyncio.Task[None]] = []
    for event in events:
        if event == "enter":
            tasks.append(waiting.task("abc"[len(tasks) % 3]))
        elif event == "leave" and endpoint.load.requests:
            waiting.leave()
        elif event == "cancel" and tasks:
            tasks[len(tasks) // 2].cancel()
        if len(tasks) % 2:
            await asyncio.sleep(0)
        assert endpoint.load.requests <= 2
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    while not all(task.done() for task in tasks):
        assert endpoint.load.requests == 2, "a request waits though a place is free"
        waiting.leave()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    assert waiting.queues.waiting() == {}


async def entered_in_turn(waiting: Waiting, first: list[tuple[str, str, int]]) -> list[str]:
    """The order in which requests of (org, team, priority) get the places of an endpoint that two requests fill."""
    await waiting.enter()
    await waiting.enter()
    tasks = []
    for number, (org, team, priority) in enumerate(first, start=1):
        tasks.append(waiting.task(team, priority, float("inf"), org))
        await waiting.are_waiting(number)
    waiting.went.clear()
    for number in range(len(first)):
        waiting.leave()
        await until(lambda went=number + 1: len(waiting.went) == went)
    await asyncio.gather(*tasks)
    return waiting.went


async def test_teams_of_one_name_in_two_organisations_have_a_share_each() -> None:
    waiting = Waiting(an_endpoint(max_running=2), max_waiting=20)
    flood = [("acme", "default", 0)] * 5
    assert (await entered_in_turn(waiting, [*flood, ("default", "default", 0)])).index("default") <= 1


async def test_another_organisations_priority_is_capped_by_the_platform() -> None:
    waiting = Waiting(an_endpoint(max_running=2), max_waiting=20)
    urgent = [("acme", "red", 9)] * 4
    assert (await entered_in_turn(waiting, [*urgent, ("default", "blue", 0)])).index("blue") <= 1
    waiting = Waiting(an_endpoint(max_running=2), max_waiting=20, max_org_priority=9)
    assert (await entered_in_turn(waiting, [("default", "blue", 0), ("acme", "red", 9)]))[0] == "acme/red"
