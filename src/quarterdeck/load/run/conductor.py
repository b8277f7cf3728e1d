"""A run from its start to its folder: locust's master (with or without workers) and what is recorded beside it.

Locust starts and stops users and sums up its tables; its shape is the clock that ends the run. What our own schedule
needs goes over its wire: `Begin` to each process, tapes and the word `over` back.
"""

import csv
import math
import signal
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quarterdeck.load.run import locust_process  # first: it patches the standard library

import gevent  # isort: skip
from locust import stats as locust_stats  # isort: skip
from locust.shape import LoadTestShape  # isort: skip

from quarterdeck.load.analysis.knee import KneeFinder
from quarterdeck.load.analysis.statistics import from_row
from quarterdeck.load.run import recording, watching, web
from quarterdeck.load.run.profile import Profile
from quarterdeck.load.run.progress import Progress
from quarterdeck.load.run.recording import Recording
from quarterdeck.load.run.shapes import Saturation
from quarterdeck.load.run.streaming import now
from quarterdeck.load.run.target import Target
from quarterdeck.load.run.users import Begin, Stage
from quarterdeck.load.run.worker_processes import WorkerProcesses, WorkersError

LEAD_SECONDS = 1.0
"""From the word to begin to the schedule's first second: users are spawned meanwhile."""
LINE_SECONDS = 10
LATE_SECONDS = 3.0
"""A ramp's step is judged so long after its end: its last answers are still to come."""


class _Clock(LoadTestShape):
    """Asks the conductor how many users there should be; None ends the run."""

    abstract = False

    def __init__(self, users: Callable[[], int | None]) -> None:
        super().__init__()
        self._users = users

    def tick(self) -> tuple[int, float] | None:
        count = self._users()
        return None if count is None else (count, float(max(1, count, self.get_current_user_count())))


@dataclass(frozen=True)
class Wishes:
    """What is wanted of a run beside the profile."""

    folder: Callable[[], Path]
    """A fresh one for each run: the web UI can start several."""
    state: Path
    """The platform's state folder, for the pids of what runs here; only looked at for a local target."""
    is_local: bool
    watch: Mapping[str, int]
    web_port: int | None
    master_port: int | None
    """Workers from other machines connect here. None: on this machine only, where there are any."""
    expect_workers: int
    finished: Callable[[Path], int]
    """Told of each folder that is whole; its exit status is the run's."""


class Conductor:
    """Runs a profile against a target, once (headless) or as often as the web UI says."""

    def __init__(self, profile: Profile, target: Target, wishes: Wishes, workers: WorkerProcesses | None) -> None:
        self._profile = profile
        self._target = target
        self._wishes = wishes
        self._workers = workers
        self._processes = wishes.expect_workers or 1
        self._is_distributed = wishes.expect_workers > 0
        self._begin: Begin | None = None
        self._recording: Recording | None = None
        self._over: dict[str, float] = {}
        self._enough_at: float | None = None
        self._interrupted = False
        self._status = 0
        self._shape = _Clock(self._users)
        is_headless = wishes.web_port is None
        self._env = locust_process.environment(profile, target.url, self._shape, is_headless=is_headless)

    def run(self) -> int:
        """Until it is over (headless), or until Ctrl-C (web). Returns the exit status."""
        events = self._env.events
        if self._is_distributed:
            host = "*" if self._wishes.master_port else "127.0.0.1"
            port = self._wishes.master_port or (self._workers.port if self._workers else 5557)
            runner = self._env.create_master_runner(host, port)
            runner.register_message("over", self._hear_over)
            events.worker_report.add_listener(lambda client_id, data: self._take(data.get("quarterdeck")))
        else:
            runner = self._env.create_local_runner()
        events.test_start.add_listener(lambda environment: self._start())
        for sig in (signal.SIGINT, signal.SIGTERM):
            gevent.signal_handler(sig, self._interrupt)
        try:
            self._wait_for_workers(runner)
            if self._interrupted:
                return 130
            if self._wishes.web_port is not None:
                self._open_web(self._wishes.web_port)
                events.test_stop.add_listener(lambda environment: gevent.spawn_later(1.5, self._finish))
            gevent.spawn(locust_stats.stats_history, runner)
            runner.start_shape()
            runner.greenlet.join()
            self._finish()
        finally:
            if self._workers:
                self._workers.end()
        return 130 if self._interrupted else self._status

    def _wait_for_workers(self, runner: Any) -> None:
        if not self._is_distributed:
            return
        if self._workers:
            self._workers.start()
        deadline = time.monotonic() + (60 if self._workers else 600)
        while len(runner.clients.ready) < self._processes and not self._interrupted:
            if self._workers and (ended := self._workers.ended()):
                raise WorkersError(f"a worker ended before it was ready: {ended}")
            if time.monotonic() > deadline:
                raise WorkersError(f"{len(runner.clients.ready)} of {self._processes} workers came")
            gevent.sleep(0.1)

    def _open_web(self, port: int) -> None:
        fine = locust_process.FineCSV(self._env, locust_stats.PERCENTILES_TO_REPORT)
        ui = self._env.create_web_ui("127.0.0.1", port, stats_csv_writer=fine, delayed_start=True)
        web.extend(ui, self._env.stats)
        ui.start()
        print(f"Web UI: http://127.0.0.1:{port}   Ctrl-C ends it.", flush=True)

    # ---- the start ----

    def _start(self) -> None:
        """Locust starts a test; its users are spawned next."""
        begin = self._begin = Begin(now() + LEAD_SECONDS, self._target, 0, self._processes)
        self._over.clear()
        self._enough_at = None
        self._recording = Recording(self._wishes.folder())
        self._progress = Progress(begin.start, self._profile.slo)
        self._knee = KneeFinder()
        runner = self._env.runner
        if self._is_distributed:
            for share, client in enumerate(runner.clients.ready):
                runner.send_message("begin", message_of(begin, share), client.id)
        else:
            self._env.stage = Stage(self._env, self._profile, begin)
        locust_process.reset_after_warmup(self._env, begin.start + self._profile.warmup, now())
        self._background = [gevent.spawn(self._each_second, begin), gevent.spawn(self._history)]

    def _users(self) -> int | None:
        """How many users locust should have now; None: the run is over."""
        begin = self._begin
        is_open = self._profile.arrivals != "users"
        if begin is None or (self._recording is None and self._env.runner.state in ("ready", "stopped")):
            return self._processes if is_open else math.ceil(self._profile.shape.at(0))
        elapsed = now() - begin.start
        is_late = elapsed > self._profile.length + self._profile.drain + 10
        if is_open:
            return None if is_late or self._is_over() else self._processes
        if elapsed < self._profile.length and not self._interrupted:
            return math.ceil(self._profile.shape.at(max(0.0, elapsed)))
        return None if is_late or self._env.runner.user_count == 0 else 0

    def _is_over(self) -> bool:
        """Every process has said so, and its last report has had time to arrive."""
        if not self._is_distributed:
            return self._env.stage is not None and self._env.stage.is_over.is_set()
        alive = {client.id for client in self._env.runner.clients.all if client.state != "missing"}
        waiting = alive - set(self._over)
        return not waiting and now() - max(self._over.values(), default=0) > locust_process.REPORT_SECONDS + 0.5

    def _enough(self) -> None:
        """No more arrivals; what was asked is still answered."""
        self._enough_at = self._enough_at or now()
        if self._is_distributed:
            self._env.runner.send_message("enough", {})
        elif self._env.stage is not None:
            self._env.stage.enough = True

    def _interrupt(self) -> None:
        """Ctrl-C: the first ends the schedule, the second everything."""
        is_first, self._interrupted = not self._interrupted, True
        if not is_first or self._recording is None:
            self._env.runner.quit()
            return
        print("Ending early: waiting for answers (Ctrl-C again: not even that).", file=sys.stderr, flush=True)
        self._recording.note("It was ended early, by Ctrl-C.")
        self._enough()

    # ---- while it runs ----

    def _hear_over(self, environment: Any, msg: Any, **_: Any) -> None:
        self._take(msg.data)
        self._over[msg.node_id] = now()

    def _take(self, batch: Mapping[str, Any] | None) -> None:
        if not batch or self._recording is None:
            return
        self._recording.take(batch)
        for row in batch["rows"]:
            self._progress.take(from_row(row))

    def _each_second(self, begin: Begin) -> None:
        second = 0
        pids: dict[int, str] = {}
        while self._recording is not None:
            if second % 5 == 0:
                pids = self._pids()
            if not self._is_distributed:
                self._take(self._env.stage.tape.take())
            self._recording.processes(watching.sample(time.time(), pids))
            if series := watching.scrape(self._target.root):
                self._recording.metrics(time.time(), series)
            elapsed = now() - begin.start
            if second > 1 and (second - 1) % LINE_SECONDS == 0 and elapsed <= self._profile.length:
                print(self._progress.line(max(0.0, elapsed - LINE_SECONDS), elapsed), flush=True)
            self._look_for_knee(elapsed)
            second += 1
            gevent.sleep(max(0.0, begin.start - LEAD_SECONDS + second - now()))

    def _pids(self) -> dict[int, str]:
        found = watching.platform_pids(self._wishes.state) if self._wishes.is_local else {}
        found |= {pid: name for name, pid in self._wishes.watch.items()}
        return found | watching.own_pids()

    def _look_for_knee(self, elapsed: float) -> None:
        """Judge the steps that are over."""
        shape = self._profile.shape
        if not isinstance(shape, Saturation):
            return
        while not self._knee.reason and (done := len(self._knee.steps)) < len(shape.levels):
            if elapsed < (done + 1) * shape.each + LATE_SECONDS:
                return
            step = self._progress.step(shape.levels[done], done * shape.each, (done + 1) * shape.each)
            reason = self._knee.add(step)
            p99 = "none" if step.p99_ms is None else f"{step.p99_ms:.0f} ms"
            print(f"step {step.rate:7.1f}/s: good {step.goodput:7.1f}/s, p99 of the first answer {p99}", flush=True)
            if reason and self._recording is not None:
                self._enough()

    def _history(self) -> None:
        """Locust's own tables, as CSV beside ours."""
        if self._recording is not None:
            base = str(self._recording.folder / "locust")
            locust_process.FineCSVFiles(self._env, locust_stats.PERCENTILES_TO_REPORT, base, full_history=True)()

    # ---- the end ----

    def _finish(self) -> None:
        """The folder is made whole. Called again for the same run, it does nothing."""
        recorded, begin = self._recording, self._begin
        if recorded is None or begin is None:
            return
        if not self._is_distributed and self._env.stage is not None:
            self._take(self._env.stage.tape.take())
            self._env.stage.close()
        self._recording = None
        gevent.killall(self._background)
        if lost := self._workers.ended() if self._workers else "":
            recorded.note(
                f"A worker ended before the run did ({lost}): its share of the arrivals is missing from then on."
            )
        if isinstance(self._profile.shape, Saturation):
            if not self._interrupted:
                self._look_for_knee(math.inf)  # the last step ended with the run
            recorded.note(self._knee.verdict())
            print(self._knee.verdict(), flush=True)
        with (recorded.folder / "locust_stats.csv").open("w", encoding="utf-8", newline="") as file:
            locust_process.FineCSV(self._env, locust_stats.PERCENTILES_TO_REPORT).requests_csv(csv.writer(file))
        started, ended_at = begin.start, min(now(), self._enough_at or math.inf, begin.start + self._profile.length)
        workers = self._wishes.expect_workers
        told = recording.about(self._profile, self._target, started, ended_at, locust_process.VERSION, workers)
        recorded.close(told)
        self._status = self._wishes.finished(recorded.folder) or (1 if lost else 0)
        if self._interrupted and self._wishes.web_port is not None:
            self._env.runner.quit()


def message_of(begin: Begin, share: int) -> dict[str, Any]:
    """The word to a worker. The key is not in it: each process is given its own, in its environment."""
    target = begin.target
    return {
        "start": begin.start,
        "url": target.url,
        "model": target.model,
        "embedding_model": target.embedding_model,
        "kind": target.kind,
        "share": share,
        "shares": begin.shares,
    }
