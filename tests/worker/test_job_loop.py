"""The job loop runs each job under a lease, repeats what failed, and gives up what it has lost."""

import asyncio
from collections.abc import Callable

import pytest
from sqlalchemy import text

from quarterdeck.store import jobs as store_jobs
from quarterdeck.store.database import Database, DatabaseUnavailableError
from quarterdeck.store.jobs import Job, JobStore, NewJob
from quarterdeck.telemetry.worker_metrics import WorkerMetrics
from quarterdeck.worker import job_loop
from quarterdeck.worker.conditions import Condition
from quarterdeck.worker.job_loop import Again, Done, JobLoop, Outcome, pause_after

KIND = "test"


class Handler:
    """Does what the test says with each job."""

    kind = KIND

    def __init__(self, act: Callable[[Job], Outcome] = lambda job: Done(), *, max_running: int = 4) -> None:
        self.max_running = max_running
        self.act = act
        self.ran: list[tuple[str, int]] = []
        self.given_up: list[tuple[str, str]] = []
        self.cancelled: list[str] = []
        self.hangs = False
        self.began = asyncio.Event()
        self.at_once = self.most = 0

    async def run(self, job: Job) -> Outcome:
        self.ran.append((job.subject, job.attempts))
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        self.began.set()
        try:
            if self.hangs:
                await asyncio.Event().wait()
            await asyncio.sleep(0)
            return self.act(job)
        except asyncio.CancelledError:
            self.cancelled.append(job.subject)
            raise
        finally:
            self.at_once -= 1

    async def give_up(self, job: Job, reason: str) -> None:
        self.given_up.append((job.subject, reason))


class Bench:
    def __init__(self, database: Database, handler: Handler) -> None:
        self.database = database
        self.handler = handler
        self.store = JobStore(database)
        self.metrics = WorkerMetrics()
        self.condition = Condition("jobs")
        self.now = 0.0
        self.loop = JobLoop(
            self.store, [handler], self.condition, self.metrics, poll_seconds=0.01, clock=lambda: self.now
        )

    async def add(self, subject: str, *, org: str = "default", max_attempts: int = 3) -> None:
        await self.store.add(
            NewJob(kind=KIND, org=org, team="t", key="key_1", subject=subject, max_attempts=max_attempts)
        )

    async def hurry(self) -> None:
        """Pauses are over."""
        async with self.database.begin() as connection:
            await connection.execute(text("UPDATE jobs SET due = 0 WHERE state = 'waiting'"))

    async def settle(self) -> None:
        """Turns until no job runs."""
        while True:
            await self.loop.turn()
            if not self.loop.running:
                return
            await asyncio.sleep(0)

    async def rows(self) -> dict[str, tuple[str, str | None]]:
        async with self.database.connect() as connection:
            found = await connection.execute(text("SELECT subject, state, error FROM jobs"))
            return {row.subject: (row.state, row.error) for row in found}


@pytest.fixture
async def bench(database: Database) -> Bench:
    return Bench(database, Handler())


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110  # the loop has no event for it
            await asyncio.sleep(0.01)


async def test_a_job_runs_once_and_is_done(bench: Bench) -> None:
    await bench.add("thing")
    await bench.settle()
    assert bench.handler.ran == [("thing", 1)]
    assert await bench.rows() == {"thing": ("done", None)}
    assert bench.metrics.jobs_waiting.values == {(KIND,): 0}
    assert bench.metrics.jobs_ended.values == {(KIND, "done"): 1}


async def test_a_failed_attempt_is_repeated_until_none_is_left_and_then_given_up(bench: Bench) -> None:
    def fail(job: Job) -> Outcome:
        if job.attempts == 1:
            raise RuntimeError("broken")
        return Again("no engine")

    bench.handler.act = fail
    await bench.add("thing", max_attempts=2)
    for _ in range(4):
        await bench.settle()
        await bench.hurry()
    assert bench.handler.ran == [("thing", 1), ("thing", 2)]
    assert bench.handler.given_up == [("thing", "no engine")]
    assert await bench.rows() == {"thing": ("failed", "no engine")}


async def test_a_job_that_can_not_be_given_up_is_given_up_again(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    reasons: list[str] = []

    async def give_up(job: Job, reason: str) -> None:
        reasons.append(reason)
        if len(reasons) == 1:
            raise RuntimeError("broken")

    bench.handler.act = lambda job: Again("no engine")
    bench.handler.give_up = give_up  # type: ignore[method-assign]
    await bench.add("thing", max_attempts=1)
    await bench.settle()
    await bench.hurry()
    await bench.settle()
    assert "job could not be ended" in caplog.text
    async with bench.database.begin() as connection:
        await connection.execute(text("UPDATE jobs SET due = 0"))  # its lease is over
    await bench.settle()
    assert reasons == ["no engine", "no engine"]
    assert await bench.rows() == {"thing": ("failed", "no engine")}


async def test_an_attempt_that_does_not_count_leaves_the_others(bench: Bench) -> None:
    bench.handler.act = lambda job: Done() if len(bench.handler.ran) == 5 else Again(after=0, is_counted=False)
    await bench.add("thing", max_attempts=1)
    for _ in range(6):
        await bench.settle()
    assert bench.handler.ran == [("thing", 1)] * 5
    assert (await bench.rows())["thing"][0] == "done"


async def test_no_more_jobs_run_than_the_handler_allows_and_half_of_them_for_one_organisation(bench: Bench) -> None:
    bench.handler.hangs = True
    for index in range(10):
        await bench.add(f"big_{index}", org="big")
    for _ in range(5):
        await bench.loop.turn()
    assert bench.loop.running == {KIND: 2}
    for index in range(10):
        await bench.add(f"other_{index}", org=f"org_{index}")
    for _ in range(5):
        await bench.loop.turn()
    assert bench.loop.running == {KIND: 4}
    await asyncio.sleep(0)
    assert sum(subject.startswith("big") for subject, _ in bench.handler.ran) == 2
    await bench.loop._end_all(is_stopping=True)


async def test_a_cancelled_job_is_stopped(bench: Bench) -> None:
    bench.handler.hangs = True
    await bench.add("thing")
    await bench.loop.turn()
    await bench.handler.began.wait()
    async with bench.database.begin() as connection:
        await bench.store.cancel_on(connection, "default", ["thing"])
    await bench.loop.turn()
    await until(lambda: not bench.loop.running)
    assert bench.handler.cancelled == ["thing"]
    assert (await bench.rows())["thing"][0] == "cancelled"
    assert bench.metrics.jobs_ended.values == {(KIND, "lost"): 1}


async def test_a_worker_away_from_the_database_for_a_lease_gives_its_jobs_up(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.handler.hangs = True
    await bench.add("thing")
    await bench.loop.turn()
    await bench.handler.began.wait()

    async def away(*args: object, **more: object) -> set[str]:
        raise DatabaseUnavailableError("away")

    monkeypatch.setattr(bench.store, "renew", away)
    await bench.loop.turn()
    assert (bench.loop.running, bench.condition.reason) == ({KIND: 1}, "away")
    bench.now = 31.0
    await bench.loop.turn()
    await until(lambda: not bench.loop.running)
    assert bench.handler.cancelled == ["thing"]


async def test_a_stopped_worker_waits_and_then_puts_its_jobs_back_uncounted(bench: Bench) -> None:
    bench.handler.hangs = True
    await bench.add("thing")
    stop = asyncio.Event()
    running = asyncio.create_task(bench.loop.run(stop))
    await bench.handler.began.wait()
    stop.set()
    for _ in range(20):
        await asyncio.sleep(0)
    assert bench.loop.running == {KIND: 1}  # it is let go on
    async with asyncio.timeout(60):
        while not running.done():
            bench.now += 20.0  # longer than a drain, whenever it began
            await asyncio.sleep(0.01)
    assert bench.handler.cancelled == ["thing"]
    (job,) = await bench.store.claim(KIND, seconds=60, limit=1)
    assert job.attempts == 1


async def test_a_dead_workers_job_is_continued_by_another(bench: Bench) -> None:
    await bench.add("thing")
    (job,) = await bench.store.claim(KIND, seconds=0, limit=1)  # by a worker that died
    await bench.settle()
    assert bench.handler.ran == [("thing", 2)]
    assert not await bench.store.finish(job, "failed")
    assert (await bench.rows())["thing"][0] == "done"


def test_pauses_double_up_to_a_minute() -> None:
    assert [pause_after(n, 0.0) for n in (1, 2, 3, 7, 50)] == [1, 2, 4, 60, 60]
    assert pause_after(1, 1.0) == pytest.approx(1.2)


async def test_all_jobs_that_ended_long_ago_are_removed_however_many_they_are(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(database, Handler())
    for number in range(7):
        await bench.add(f"thing_{number}")
    while await bench.loop.turn():
        await bench.settle()
    monkeypatch.setattr(store_jobs, "AT_ONCE", 2)
    monkeypatch.setattr(job_loop, "KEEP_SECONDS", -1.0)
    bench.now = job_loop.CLEAN_SECONDS
    for _ in range(4):
        await bench.loop.turn()
    async with database.connect() as connection:
        assert await connection.scalar(text("SELECT count(*) FROM jobs")) == 0
