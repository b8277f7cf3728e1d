"""The work queue: each key once, one at a time, and failures later."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable

from quarterdeck.operator.work_queue import WorkQueue


@contextlib.asynccontextmanager
async def working(
    handle: Callable[[str], Awaitable[float | None]], workers: int = 4, **options: float
) -> AsyncIterator[WorkQueue[str]]:
    queue = WorkQueue(handle, **options)  # type: ignore[arg-type]
    task = asyncio.create_task(queue.run(workers))
    try:
        yield queue
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_key_that_is_added_often_is_handled_once() -> None:
    handled = Counter[str]()
    done = asyncio.Event()

    async def handle(key: str) -> None:
        handled[key] += 1
        if key == "last":
            done.set()

    async with working(handle, workers=1) as queue:
        for _ in range(100):
            queue.add("a")
        queue.add("last")
        await done.wait()
    assert handled == {"a": 1, "last": 1}


async def test_a_key_is_never_handled_twice_at_the_same_time_and_not_lost() -> None:
    running = Counter[str]()
    most = 0
    starts: asyncio.Queue[str] = asyncio.Queue()
    go = asyncio.Semaphore(0)

    async def handle(key: str) -> None:
        nonlocal most
        running[key] += 1
        most = max(most, running[key])
        starts.put_nowait(key)
        await go.acquire()
        running[key] -= 1

    async with working(handle) as queue:
        queue.add("a")
        await starts.get()
        queue.add("a")
        queue.add("a")
        assert queue.depth == 1
        go.release()
        await starts.get()
        go.release()
    assert most == 1


async def test_a_failing_key_is_tried_again_and_the_others_are_handled_meanwhile() -> None:
    attempts = 0
    failures: list[str] = []
    fixed = asyncio.Event()
    others: asyncio.Queue[str] = asyncio.Queue()

    async def handle(key: str) -> None:
        nonlocal attempts
        if key != "bad":
            others.put_nowait(key)
            return
        attempts += 1
        if attempts < 4:
            raise RuntimeError("broken")
        fixed.set()

    queue = WorkQueue(
        handle,  # type: ignore[arg-type]
        on_failure=lambda key, error: failures.append(str(error)),
        first_pause_seconds=0.001,
    )
    task = asyncio.create_task(queue.run(1))
    queue.add("bad")
    queue.add("good")
    assert await others.get() == "good"
    await fixed.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert failures == ["broken"] * 3


async def test_a_key_is_handled_again_after_the_pause_that_it_asked_for() -> None:
    times = 0
    twice = asyncio.Event()

    async def handle(key: str) -> float:
        nonlocal times
        times += 1
        if times == 2:
            twice.set()
        return 0.01

    async with working(handle) as queue:
        queue.add("a")
        await twice.wait()


async def test_of_two_pauses_the_shorter_one_counts() -> None:
    handled: asyncio.Queue[str] = asyncio.Queue()

    async def handle(key: str) -> None:
        handled.put_nowait(key)

    async with working(handle) as queue:
        queue.add_after("a", 3600)
        queue.add_after("a", 0.01)
        queue.add_after("a", 7200)
        assert await handled.get() == "a"
        queue.forget("a")
