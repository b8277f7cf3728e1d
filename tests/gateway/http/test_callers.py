"""Requests in flight are counted, bounded, timed and drained."""

import asyncio

import pytest

from quarterdeck.errors import RateLimitError, RequestTimeoutError, ServiceUnavailableError
from quarterdeck.gateway.http.callers import MIB, Caller, Callers
from quarterdeck.settings.config import GatewayConfig


async def wait_for_an_answer(callers: Callers) -> Caller:
    task = asyncio.current_task()
    assert task is not None
    caller = callers.enter(task)
    try:
        await asyncio.Event().wait()
    finally:
        callers.leave(caller)
    return caller


async def test_empty_returns_each_time_the_last_request_ends() -> None:
    callers = Callers()
    await callers.empty()
    for so_many in (1, 3):
        waiting = [asyncio.create_task(wait_for_an_answer(callers)) for _ in range(so_many)]
        await asyncio.sleep(0)
        assert len(callers) == so_many
        empty = asyncio.create_task(callers.empty())
        await asyncio.sleep(0)
        for task in waiting:
            assert not empty.done()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        await empty
        assert len(callers) == 0


async def test_a_settled_caller_may_hang_up_and_a_stopped_one_is_stopped_once() -> None:
    callers = Callers()
    task = asyncio.create_task(wait_for_an_answer(callers))
    await asyncio.sleep(0)
    (caller,) = callers
    caller.is_settled = True
    caller.hang_up()
    assert (caller.reason, task.cancelling()) == (None, 0)
    callers.stop_all()
    callers.stop_all()
    assert (caller.reason, task.cancelling()) == ("shutting_down", 1)
    assert caller.was_stopped()
    assert task.cancelling() == 0
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_deadline_that_passes_stops_its_request() -> None:
    callers = Callers(sweep_seconds=0.001)
    task = asyncio.create_task(wait_for_an_answer(callers))
    await asyncio.sleep(0)
    (caller,) = callers
    caller.deadline = asyncio.get_running_loop().time()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert caller.reason == "slow"
    assert isinstance(caller.error(), RequestTimeoutError)


async def test_the_error_of_a_stopped_request_says_why() -> None:
    task = asyncio.create_task(asyncio.Event().wait())
    gone, last = Caller(task), Caller(task)
    gone.hang_up()
    last.stop("shutting_down")
    error = last.error()
    assert gone.error() is None
    assert isinstance(error, ServiceUnavailableError)
    assert (error.code, error.headers) == ("shutting_down", {"connection": "close"})


async def test_more_than_the_limit_are_refused() -> None:
    callers = Callers()
    tasks = [asyncio.create_task(wait_for_an_answer(callers)) for _ in range(2)]
    await asyncio.sleep(0)
    first, second = callers
    bounds = GatewayConfig(max_in_flight=1)
    callers.admit(first, "key_1", None, bounds)
    with pytest.raises(ServiceUnavailableError) as refused:
        callers.admit(second, "key_2", None, bounds)
    assert refused.value.code == "overloaded"
    callers.admit(second, "key_2", None, bounds, counts=False)
    callers.stop_all()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert callers.admitted == 0


async def test_a_drain_waits_then_cancels_and_admits_nothing() -> None:
    callers, hurry = Callers(), asyncio.Event()
    task = asyncio.create_task(wait_for_an_answer(callers))
    await asyncio.sleep(0)
    draining = asyncio.create_task(callers.drain(60, hurry))
    await asyncio.sleep(0)
    with pytest.raises(ServiceUnavailableError):
        callers.admit(Caller(task), "key", None, GatewayConfig())
    assert not task.cancelling()
    hurry.set()
    await draining
    assert task.done()
    await Callers().drain(60, asyncio.Event())  # nothing is in flight


async def test_a_request_that_does_not_end_does_not_hold_up_a_drain_for_ever() -> None:
    callers, may_end = Callers(), asyncio.Event()

    async def ignore_the_cancel() -> None:
        task = asyncio.current_task()
        assert task is not None
        caller = callers.enter(task)
        while not may_end.is_set():
            try:
                await may_end.wait()
            except asyncio.CancelledError:
                continue
        callers.leave(caller)

    task = asyncio.create_task(ignore_the_cancel())
    await asyncio.sleep(0)
    await callers.drain(0, asyncio.Event(), cancel_seconds=0.01)
    assert len(callers) == 1
    may_end.set()
    await task


def in_use(callers: Callers) -> bool:
    return any(use.requests or use.bytes for use in callers._uses.values())


async def entered(callers: Callers, count: int) -> list[Caller]:
    task = asyncio.current_task()
    assert task is not None
    return [callers.enter(task) for _ in range(count)]


async def test_a_key_has_a_share_of_the_requests_in_flight() -> None:
    callers, bounds = Callers(), GatewayConfig(max_in_flight_per_key=2)
    first, second, third, other = await entered(callers, 4)
    callers.admit(first, "greedy", None, bounds)
    callers.admit(second, "greedy", None, bounds)
    with pytest.raises(RateLimitError) as refused:
        callers.admit(third, "greedy", None, bounds)
    assert (refused.value.status, refused.value.retry_after) == (429, 1)
    callers.admit(other, "modest", None, bounds)
    callers.leave(first)
    callers.admit(third, "greedy", None, bounds)
    for each in (second, third, other):
        callers.leave(each)
    assert (callers.admitted, callers.held, in_use(callers)) == (0, 0, False)


async def test_the_stated_sizes_of_bodies_count_for_their_key_alone() -> None:
    callers = Callers()
    bounds = GatewayConfig(max_body_mb_in_flight=4, max_body_mb_in_flight_per_key=2)
    big, second, small, other = await entered(callers, 4)
    callers.admit(big, "greedy", 3 * MIB, bounds)  # a single one is always taken
    with pytest.raises(RateLimitError):
        callers.admit(second, "greedy", MIB, bounds)
    callers.admit(small, "greedy", 0, bounds)
    callers.admit(other, "modest", 2 * MIB, bounds)
    assert callers.held == 0
    for each in (big, small, other):
        callers.leave(each)
    assert not in_use(callers)


async def test_what_has_arrived_counts_for_all() -> None:
    callers, bounds = Callers(), GatewayConfig(max_body_mb_in_flight=4)
    first, second = await entered(callers, 2)
    for each, key in ((first, "a"), (second, "b")):
        callers.admit(each, key, 3 * MIB, bounds)
    callers.hold(first, 3 * MIB, bounds)
    with pytest.raises(ServiceUnavailableError) as refused:
        callers.hold(second, 3 * MIB, bounds)
    assert refused.value.code == "overloaded"
    callers.leave(first)
    callers.hold(second, 3 * MIB, bounds)
    callers.leave(second)
    assert callers.held == 0


async def test_a_body_of_unstated_size_counts_as_it_arrives_and_is_stopped() -> None:
    callers = Callers()
    bounds = GatewayConfig(max_body_mb_in_flight_per_key=2)
    tasks = [asyncio.create_task(wait_for_an_answer(callers)) for _ in range(2)]
    await asyncio.sleep(0)
    first, second = callers
    for each in (first, second):
        callers.admit(each, "key", None, bounds)
    callers.arrive(first, 2 * MIB, bounds)
    assert first.reason is None
    callers.arrive(second, MIB, bounds)
    assert second.reason == "overloaded"
    error = second.error()
    assert error is not None and (error.status, error.headers) == (503, {"connection": "close"})
    callers.stop_all()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert (callers.held, in_use(callers)) == (0, False)


async def test_a_decoded_body_counts_for_its_key_with_the_size_that_it_has() -> None:
    callers, bounds = Callers(), GatewayConfig(max_body_mb_in_flight_per_key=2)
    task = asyncio.current_task()
    assert task is not None
    first, second, other = (callers.enter(task) for _ in range(3))
    callers.admit(first, "a", MIB // 2, bounds)
    callers.hold(first, 5 * MIB, bounds)  # one body may have any size that its route allows
    callers.admit(second, "a", 1000, bounds)
    with pytest.raises(RateLimitError):
        callers.hold(second, MIB, bounds)
    callers.admit(other, "b", None, bounds)
    callers.hold(other, MIB, bounds)
    assert callers.held == 6 * MIB
    for caller in (first, second, other):
        callers.leave(caller)
    assert callers.held == 0
    again = callers.enter(task)
    callers.admit(again, "a", 2 * MIB, bounds)
    callers.leave(again)
