"""Who waits for an answer is known until it leaves, and can be told to go."""

import asyncio

import pytest

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


async def test_empty_is_when_the_last_one_has_left_each_time() -> None:
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
