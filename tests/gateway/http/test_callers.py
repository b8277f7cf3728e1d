"""Requests in flight are counted, bounded, timed and drained."""

import asyncio

import pytest

from quarterdeck.errors import RequestTimeoutError, ServiceUnavailableError
from quarterdeck.gateway.http.callers import Caller, Callers


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
    callers.admit(2)
    callers.admit(None)
    with pytest.raises(ServiceUnavailableError) as refused:
        callers.admit(1)
    assert refused.value.code == "overloaded"
    callers.stop_all()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_drain_waits_then_cancels_and_admits_nothing() -> None:
    callers, hurry = Callers(), asyncio.Event()
    task = asyncio.create_task(wait_for_an_answer(callers))
    await asyncio.sleep(0)
    draining = asyncio.create_task(callers.drain(60, hurry))
    await asyncio.sleep(0)
    with pytest.raises(ServiceUnavailableError):
        callers.admit(None)
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
