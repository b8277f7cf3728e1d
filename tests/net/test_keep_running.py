"""A background job that fails is started again."""

import asyncio
import errno
import logging

import pytest

from quarterdeck.net.tasks import keep_running


class Job:
    """Fails with each of `errors`, then returns."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.starts = 0

    async def __call__(self) -> None:
        self.starts += 1
        await asyncio.sleep(0)
        if self.errors:
            raise self.errors.pop(0)


async def test_one_that_cannot_open_a_file_runs_again(caplog: pytest.LogCaptureFixture) -> None:
    failed: list[str] = []
    job = Job(*[OSError(errno.EMFILE, "Too many open files") for _ in range(3)], ValueError("x"))
    with caplog.at_level(logging.ERROR):
        await keep_running("spool", job, on_failure=failed.append, restart_seconds=0.001)
    assert job.starts == 5 and failed == ["spool"] * 4
    assert len(caplog.records) <= 4 and "spool" in caplog.messages[0]


async def test_a_fatal_error_is_raised() -> None:
    with pytest.raises(KeyError):
        await keep_running("migration", Job(KeyError("x")), fatal=(KeyError,))


async def test_it_can_be_cancelled() -> None:
    task = asyncio.create_task(keep_running("job", Job(OSError("x")), restart_seconds=60))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
