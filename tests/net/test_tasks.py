import asyncio

import pytest

from quarterdeck.net.tasks import BackgroundTasks


async def test_drain_waits_for_tasks_that_start_more_tasks() -> None:
    tasks = BackgroundTasks()
    ended: list[str] = []

    async def second() -> None:
        await asyncio.sleep(0.01)
        ended.append("second")

    async def first() -> None:
        await asyncio.sleep(0.01)
        ended.append("first")
        tasks.spawn(second())

    tasks.spawn(first())
    await tasks.drain()
    assert ended == ["first", "second"]
    assert len(tasks) == 0


async def test_a_task_that_fails_is_logged_and_holds_nothing_up(caplog: pytest.LogCaptureFixture) -> None:
    tasks = BackgroundTasks()

    async def fail() -> None:
        raise RuntimeError("a bug")

    tasks.spawn(fail())
    await tasks.drain()
    assert [record.message for record in caplog.records] == ["post-request task failed"]
    assert "a bug" in caplog.text


async def test_drain_cancels_the_remaining_tasks_and_waits_for_them_to_end() -> None:
    tasks = BackgroundTasks()
    ended: list[str] = []

    async def slow() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended.append("slow")

    tasks.spawn(slow())
    await tasks.drain(cancel_after=0.01)
    assert ended == ["slow"]
    assert len(tasks) == 0


async def test_drain_returns_at_once_where_nothing_runs() -> None:
    await BackgroundTasks().drain(cancel_after=0)
