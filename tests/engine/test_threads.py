"""Blocking calls in threads: results, errors, and calls that hang."""

import asyncio
import threading

import pytest

from quarterdeck.engine.threads import in_thread


async def test_the_answer_and_the_error_come_back() -> None:
    assert await in_thread(lambda: 7, 10) == 7
    with pytest.raises(ZeroDivisionError):
        await in_thread(lambda: 1 / 0, 10)


async def test_one_that_hangs_is_left_behind() -> None:
    never = threading.Event()
    with pytest.raises(TimeoutError):
        await in_thread(never.wait, 0.01)
    never.set()


async def test_a_thread_that_started_processes_stays() -> None:
    ident = await in_thread(threading.get_ident, 10, stays=True)
    assert ident in {thread.ident for thread in threading.enumerate()}


async def test_a_cancellation_that_comes_with_the_answer_is_not_lost() -> None:
    go, known = threading.Event(), set(threading.enumerate())
    waiting = asyncio.create_task(in_thread(go.wait, 60))
    await asyncio.sleep(0)
    (thread,) = set(threading.enumerate()) - known
    go.set()
    thread.join(60)  # its answer waits for the loop
    asyncio.get_running_loop().call_soon(waiting.cancel)
    with pytest.raises(asyncio.CancelledError):
        await waiting
