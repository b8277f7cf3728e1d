"""Runs jobs: claims what is due, hands each job to the handler of its kind, renews the leases, records the outcome.

Any number of workers may run jobs. A job whose lease is lost (it was cancelled, or this worker was away from the
database for longer than a lease) is given up at once: its task is cancelled.
"""

import asyncio
import logging
import random
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from quarterdeck.store.database import DatabaseUnavailableError
from quarterdeck.store.jobs import Job, JobStore
from quarterdeck.telemetry.worker_metrics import WorkerMetrics
from quarterdeck.worker.conditions import Condition, pause

log = logging.getLogger(__name__)

POLL_SECONDS = 0.5
"""Between two looks for jobs, and two renewals of the leases: how soon a job begins, and a cancelled one stops. Each
look is one look-up in a partial index for each organisation with jobs."""
LEASE_SECONDS = 30.0
"""How long a job waits after its worker has died. Sixty renewals: a busy machine misses many."""
DRAIN_SECONDS = 10.0
"""How long jobs may go on after a stop. Then they are put back, and another worker continues them."""
FIRST_PAUSE, MOST_PAUSE = 1.0, 60.0
"""Seconds: 1, 2, 4, … 60 between attempts: ten attempts take four minutes."""
JITTER = 0.2
COUNT_SECONDS = 10.0
"""Between two counts of the jobs that wait, for the metrics."""
CLEAN_SECONDS = 600.0
KEEP_SECONDS = 7 * 86_400.0
"""How long the row of a job that has ended is kept, without its payload: to see what happened."""


@dataclass(frozen=True, slots=True)
class Done:
    """The job has come to its end, whatever became of its subject."""


@dataclass(frozen=True, slots=True)
class Again:
    """The attempt failed, or there is more to do."""

    error: str | None = None
    after: float | None = None
    """Seconds to the next attempt. None: by the number of attempts."""
    is_counted: bool = True
    """Whether it counts as one of the attempts that a job may have."""


Outcome = Done | Again


class JobHandler(Protocol):
    """Runs the jobs of one kind. Both methods are cancelled when the job's lease is lost, or at the end of a drain."""

    kind: str

    @property
    def max_running(self) -> int:
        """Jobs at once in this process."""
        ...

    async def run(self, job: Job) -> Outcome:
        """Continue the job, as a repeatable step or several. What it raises counts as a failed attempt."""
        ...

    async def give_up(self, job: Job, reason: str) -> None:
        """No further attempt may be made: record the failure where the job's owner sees it. Repeatable."""
        ...


class JobLoop:
    def __init__(
        self,
        store: JobStore,
        handlers: Sequence[JobHandler],
        condition: Condition,
        metrics: WorkerMetrics,
        *,
        poll_seconds: float = POLL_SECONDS,
        lease_seconds: float = LEASE_SECONDS,
        drain_seconds: float = DRAIN_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._handlers = handlers
        self._condition = condition
        self._metrics = metrics
        self._poll_seconds = poll_seconds
        self._lease_seconds = lease_seconds
        self._drain_seconds = drain_seconds
        self._clock = clock
        self._running: dict[str, _Running] = {}
        """By lease."""
        self._after: dict[str, str] = {}
        """By kind: the organisation whose job was claimed last."""
        self._cleaned = -CLEAN_SECONDS
        self._counted = -COUNT_SECONDS

    @property
    def running(self) -> Mapping[str, int]:
        """Jobs that run here, by kind."""
        return Counter(each.job.kind for each in self._running.values())

    async def run(self, stop: asyncio.Event) -> None:
        """Run jobs until `stop` is set, then let those that run go on for the time of a drain."""
        try:
            while not stop.is_set():
                if not await self.turn():
                    await pause(stop, self._poll_seconds)
            await self._drain()
        finally:
            await self._end_all(is_stopping=True)

    async def turn(self) -> bool:
        """Renew the leases and claim what is due. Whether there may be more to claim at once."""
        has_more = False
        try:
            await self._renew()
            for handler in self._handlers:
                has_more = await self._claim(handler) or has_more
            await self._count()
            await self._clean()
            self._condition.ok()
        except DatabaseUnavailableError as error:
            self._condition.failed(str(error))
            await self._end_unrenewed()
        except Exception as error:  # an error boundary, as in org_loop: it must not end the worker
            self._condition.failed(f"{type(error).__name__}: {error}", trace=error)
            await self._end_unrenewed()
        return has_more

    async def _count(self) -> None:
        """Update the gauges of what waits."""
        if self._clock() - self._counted < COUNT_SECONDS:
            return
        self._counted = self._clock()
        counts = await self._store.counts()
        for handler in self._handlers:
            found = counts.get(handler.kind)
            self._metrics.jobs_running.set(self.running[handler.kind], (handler.kind,))
            self._metrics.jobs_waiting.set(found.waiting if found else 0, (handler.kind,))
            self._metrics.jobs_oldest_seconds.set(found.oldest_seconds if found else 0, (handler.kind,))
            self._metrics.jobs_open_seconds.set(found.open_seconds if found else 0, (handler.kind,))

    async def _renew(self) -> None:
        if not self._running:
            return
        began = self._clock()
        held = await self._store.renew(tuple(self._running), seconds=self._lease_seconds)
        for lease, each in tuple(self._running.items()):
            if lease in held:
                each.renewed = began
            else:
                each.end("lost")

    async def _end_unrenewed(self) -> None:
        """Give up jobs whose leases have ended as far as this process can know: another may run them."""
        for each in tuple(self._running.values()):
            if self._clock() - each.renewed >= self._lease_seconds:
                each.end("lost")

    async def _claim(self, handler: JobHandler) -> bool:
        running = [each.job for each in self._running.values() if each.job.kind == handler.kind]
        room = handler.max_running - len(running)
        if room <= 0:
            return False
        # Half of the places at most for one organisation, so that another's job finds one.
        of_org = Counter(job.org for job in running)
        busy = [org for org, count in of_org.items() if 2 * count >= handler.max_running > 1]
        began = self._clock()
        limit = min(room, max(1, handler.max_running // 2))
        claimed = await self._store.claim(
            handler.kind,
            seconds=self._lease_seconds,
            limit=limit,
            after=self._after.get(handler.kind, ""),
            busy=busy,
        )
        for job in claimed:
            self._after[handler.kind] = job.org
            each = _Running(job, began)
            self._running[job.lease] = each
            each.task = asyncio.create_task(self._work(handler, each), name=job.id)
            self._metrics.jobs_running.set(self.running[handler.kind], (handler.kind,))
        return bool(claimed)

    async def _work(self, handler: JobHandler, each: "_Running") -> None:
        job, outcome = each.job, "lost"
        try:
            outcome = await self._attempt(handler, job)
        except asyncio.CancelledError:
            if each.why == "stopping":
                outcome = "stopped"
                await self._put_back(job)
        except DatabaseUnavailableError as error:  # the lease ends by itself, and the job is repeated
            self._condition.failed(str(error))
        except Exception:  # an error boundary: it could not be given up, which is repeated as well
            log.exception("job could not be ended", extra=_named(job))
        finally:
            self._running.pop(job.lease, None)
            self._metrics.jobs_running.set(self.running[job.kind], (job.kind,))
            self._metrics.jobs_ended.add((job.kind, outcome))
            if outcome == "lost":
                log.info("job given up: its lease is not ours any more", extra=_named(job))

    async def _attempt(self, handler: JobHandler, job: Job) -> str:
        if job.is_exhausted:
            reason = _reason(job)
            await handler.give_up(job, reason)
            await self._store.finish(job, "failed", error=reason)
            log.warning("job failed: %s", reason, extra=_named(job))
            return "failed"
        try:
            outcome = await handler.run(job)
        except DatabaseUnavailableError:
            raise
        except Exception as error:  # an error boundary: one job must not end the others
            log.exception("job attempt failed", extra=_named(job))
            outcome = Again(f"{type(error).__name__}: {error}")
        if isinstance(outcome, Done):
            await self._store.finish(job, "done")
            return "done"
        delay = pause_after(job.attempts, random.random()) if outcome.after is None else outcome.after  # noqa: S311  # no secret
        await self._store.release(job, delay=delay, error=outcome.error, is_counted=outcome.is_counted)
        if outcome.error is not None:
            log.info("job attempt failed, trying again in %.1f s: %s", delay, outcome.error, extra=_named(job))
        return "retried"

    async def _put_back(self, job: Job) -> None:
        try:
            await self._store.release(job, is_counted=False)
        except DatabaseUnavailableError as error:
            log.warning("could not put a job back, its lease will end: %s", error, extra=_named(job))

    async def _clean(self) -> None:
        if self._clock() - self._cleaned >= CLEAN_SECONDS and not await self._store.clean(keep_seconds=KEEP_SECONDS):
            self._cleaned = self._clock()

    async def _drain(self) -> None:
        until = self._clock() + self._drain_seconds
        if self._running:
            log.info("waiting for %d jobs", len(self._running))
        while self._running and self._clock() < until:
            try:
                await self._renew()
            except DatabaseUnavailableError as error:
                self._condition.failed(str(error))
            tasks = [each.task for each in self._running.values() if each.task is not None]
            if tasks:
                await asyncio.wait(tasks, timeout=self._poll_seconds)

    async def _end_all(self, *, is_stopping: bool) -> None:
        ending = [each for each in self._running.values() if each.task is not None]
        for each in ending:
            each.end("stopping" if is_stopping else "lost")
        await asyncio.gather(*(each.task for each in ending if each.task is not None), return_exceptions=True)


class _Running:
    """A job that runs here."""

    __slots__ = ("job", "renewed", "task", "why")

    def __init__(self, job: Job, renewed: float) -> None:
        self.job = job
        self.renewed = renewed
        self.task: asyncio.Task[None] | None = None
        self.why = ""

    def end(self, why: str) -> None:
        if self.task is not None and not self.why:
            self.why = why
            self.task.cancel()


def pause_after(attempts: int, chance: float) -> float:
    """Seconds to the next attempt after this many. `chance`: 0 to 1, spreads repetitions. Pure."""
    planned = min(FIRST_PAUSE * 2.0 ** min(max(attempts - 1, 0), 20), MOST_PAUSE)
    return planned * (1 + JITTER * chance)


def _reason(job: Job) -> str:
    if job.is_late:
        return "It was not complete in time." + (f" Last error: {job.error}" if job.error else "")
    return job.error or f"It failed {job.attempts - 1} times."


def _named(job: Job) -> dict[str, object]:
    return {"job": job.id, "kind": job.kind, "org": job.org, "subject": job.subject, "attempt": job.attempts}
