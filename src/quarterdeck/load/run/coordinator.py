"""Coordinates a run from start to result folder: locust's master (with or without workers) and the recording.

Locust starts and stops users and aggregates its tables; its load shape ends the run. Coordinator and workers exchange
locust's messages: `start` and `stop_arrivals` to each worker, samples and `finished` back.
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
from quarterdeck.load.analysis.samples import from_row
from quarterdeck.load.run import monitoring, recording, web_ui
from quarterdeck.load.run.client import now
from quarterdeck.load.run.generator import Assignment, LoadGenerator
from quarterdeck.load.run.profile import Profile
from quarterdeck.load.run.progress import Progress
from quarterdeck.load.run.recording import Recording
from quarterdeck.load.run.shapes import Saturation
from quarterdeck.load.run.target import Target
from quarterdeck.load.run.worker_processes import WorkerProcesses, WorkersError

LEAD_SECONDS = 1.0
"""From the start message to the schedule's first second, while locust spawns users."""
LINE_SECONDS = 10
LATE_SECONDS = 3.0
"""From the end of a ramp's step to its evaluation: its last answers are still arriving."""
MASTER_PORT = 5557
"""Locust's default."""
LOCAL_WORKERS_SECONDS = 60
REMOTE_WORKERS_SECONDS = 600
"""How long to wait for workers to connect. Those on other machines are started by hand."""
WEB_STOP_SECONDS = 1.5
"""From a stop in the web UI to the end of the recording: workers report once a second."""
OVERRUN_SECONDS = 10
"""After length and drain of the profile: a run that has not ended by then is ended."""
REPORT_MARGIN_SECONDS = 0.5
"""For a worker's last report, beyond its interval."""


class _CoordinatedShape(LoadTestShape):
    """Locust asks it every second for the number of users, and it asks the coordinator. None ends the run."""

    abstract = False

    def __init__(self, users: Callable[[], int | None]) -> None:
        super().__init__()
        self._users = users

    def tick(self) -> tuple[int, float] | None:
        count = self._users()
        return None if count is None else (count, float(max(1, count, self.get_current_user_count())))


@dataclass(frozen=True)
class RunOptions:
    """Settings of a run besides its profile."""

    folder: Callable[[], Path]
    """Returns a new folder for each run; the web UI can start several."""
    state: Path | None
    """The state folder of a local target, where the pids of its processes are found. None: not local."""
    watch: Mapping[str, int]
    """Further processes to record, name → pid."""
    web_port: int | None
    master_port: int | None
    """Where workers on other machines connect. None: local workers only, if any."""
    expect_workers: int
    on_finished: Callable[[Path], int]
    """Called with each complete folder; its result is the exit status."""


class Coordinator:
    """Runs a profile against a target: once if headless, or on each start from the web UI."""

    def __init__(self, profile: Profile, target: Target, options: RunOptions, workers: WorkerProcesses | None) -> None:
        self._profile = profile
        self._target = target
        self._options = options
        self._workers = workers
        self._processes = options.expect_workers or 1
        self._is_distributed = options.expect_workers > 0
        self._assignment: Assignment | None = None
        self._recording: Recording | None = None
        self._finished_at: dict[str, float] = {}
        self._stopped_at: float | None = None
        self._interrupted = False
        self._status = 0
        self._shape = _CoordinatedShape(self._users)
        is_headless = options.web_port is None
        self._env = locust_process.environment(profile, target.url, self._shape, is_headless=is_headless)

    def run(self) -> int:
        """Run until the schedule ends (headless) or Ctrl-C (web). Returns the exit status."""
        events = self._env.events
        if self._is_distributed:
            host = "*" if self._options.master_port else "127.0.0.1"
            port = self._options.master_port or (self._workers.port if self._workers else MASTER_PORT)
            runner = self._env.create_master_runner(host, port)
            runner.register_message("finished", self._worker_finished)
            events.worker_report.add_listener(lambda client_id, data: self._record(data.get("quarterdeck")))
        else:
            runner = self._env.create_local_runner()
        events.test_start.add_listener(lambda environment: self._start())
        for sig in (signal.SIGINT, signal.SIGTERM):
            gevent.signal_handler(sig, self._interrupt)
        try:
            self._wait_for_workers(runner)
            if self._interrupted:
                return 130
            if self._options.web_port is not None:
                self._open_web(self._options.web_port)
                events.test_stop.add_listener(lambda environment: gevent.spawn_later(WEB_STOP_SECONDS, self._finish))
            gevent.spawn(locust_stats.stats_history, runner)
            runner.start_shape()
            runner.greenlet.join()
            self._finish()
        finally:
            if self._workers:
                self._workers.stop()
        return 130 if self._interrupted else self._status

    def _wait_for_workers(self, runner: Any) -> None:
        if not self._is_distributed:
            return
        if self._workers:
            self._workers.start()
        deadline = time.monotonic() + (LOCAL_WORKERS_SECONDS if self._workers else REMOTE_WORKERS_SECONDS)
        while len(runner.clients.ready) < self._processes and not self._interrupted:
            if self._workers and (ended := self._workers.ended()):
                raise WorkersError(f"a worker exited before it was ready: {ended}")
            if time.monotonic() > deadline:
                raise WorkersError(f"only {len(runner.clients.ready)} of {self._processes} workers connected")
            gevent.sleep(0.1)

    def _open_web(self, port: int) -> None:
        fine = locust_process.FineCSV(self._env, locust_stats.PERCENTILES_TO_REPORT)
        ui = self._env.create_web_ui("127.0.0.1", port, stats_csv_writer=fine, delayed_start=True)
        web_ui.extend(ui, self._env.stats)
        ui.start()
        print(f"Web UI: http://127.0.0.1:{port}   Press Ctrl-C to stop.", flush=True)

    # ---- the start ----

    def _start(self) -> None:
        """Called when locust starts a test, before it spawns users."""
        first = self._assignment = Assignment(now() + LEAD_SECONDS, self._target, 0, self._processes)
        self._finished_at.clear()
        self._stopped_at = None
        self._recording = Recording(self._options.folder())
        self._progress = Progress(first.start, self._profile.slo)
        self._knee = KneeFinder()
        runner = self._env.runner
        if self._is_distributed:
            for share, client in enumerate(runner.clients.ready):
                runner.send_message("start", message_of(first, share), client.id)
        else:
            self._env.generator = LoadGenerator(self._env, self._profile, first)
        locust_process.reset_after_warmup(self._env, first.start + self._profile.warmup, now())
        self._background = [gevent.spawn(self._each_second, first.start), gevent.spawn(self._write_locust_tables)]

    def _users(self) -> int | None:
        """The number of users locust should have now; None: the run is over."""
        assignment = self._assignment
        is_open = self._profile.arrivals != "users"
        if assignment is None or (self._recording is None and self._env.runner.state in ("ready", "stopped")):
            return self._processes if is_open else math.ceil(self._profile.shape.at(0))
        elapsed = now() - assignment.start
        is_late = elapsed > self._profile.length + self._profile.drain + OVERRUN_SECONDS
        if is_open:
            return None if is_late or self._is_over() else self._processes
        if elapsed < self._profile.length and not self._interrupted:
            return math.ceil(self._profile.shape.at(max(0.0, elapsed)))
        return None if is_late or self._env.runner.user_count == 0 else 0

    def _is_over(self) -> bool:
        """Whether every process has finished and its last report has had time to arrive."""
        if not self._is_distributed:
            return self._env.generator is not None and self._env.generator.is_over.is_set()
        alive = {client.id for client in self._env.runner.clients.all if client.state != "missing"}
        waiting = alive - set(self._finished_at)
        last = max(self._finished_at.values(), default=0)
        return not waiting and now() - last > locust_process.REPORT_SECONDS + REPORT_MARGIN_SECONDS

    def _stop_arrivals(self) -> None:
        """Send no more requests; those in flight are still answered."""
        self._stopped_at = self._stopped_at or now()
        if self._is_distributed:
            self._env.runner.send_message("stop_arrivals", {})
        elif self._env.generator is not None:
            self._env.generator.stop_arrivals = True

    def _interrupt(self) -> None:
        """Handle Ctrl-C or SIGTERM: the first ends the schedule, the second quits."""
        is_first, self._interrupted = not self._interrupted, True
        if not is_first or self._recording is None:
            self._env.runner.quit()
            return
        print("Stopping: waiting for answers in flight (Ctrl-C again to quit).", file=sys.stderr, flush=True)
        self._recording.note("The run was stopped early with Ctrl-C.")
        self._stop_arrivals()

    # ---- while it runs ----

    def _worker_finished(self, environment: Any, msg: Any, **_: Any) -> None:
        self._record(msg.data)
        self._finished_at[msg.node_id] = now()

    def _record(self, batch: Mapping[str, Any] | None) -> None:
        if not batch or self._recording is None:
            return
        self._recording.add(batch)
        for row in batch["rows"]:
            self._progress.add(from_row(row))

    def _each_second(self, start: float) -> None:
        second = 0
        pids: dict[int, str] = {}
        while self._recording is not None:
            if second % 5 == 0:
                pids = self._pids()
            if not self._is_distributed:
                self._record(self._env.generator.buffer.take())
            self._recording.processes(monitoring.sample(time.time(), pids))
            if series := monitoring.scrape(self._target.root):
                self._recording.metrics(time.time(), series)
            elapsed = now() - start
            if second > 1 and (second - 1) % LINE_SECONDS == 0 and elapsed <= self._profile.length:
                print(self._progress.line(max(0.0, elapsed - LINE_SECONDS), elapsed), flush=True)
            self._look_for_knee(elapsed)
            second += 1
            gevent.sleep(max(0.0, start - LEAD_SECONDS + second - now()))

    def _pids(self) -> dict[int, str]:
        found = monitoring.platform_pids(self._options.state) if self._options.state else {}
        found |= {pid: name for name, pid in self._options.watch.items()}
        return found | monitoring.own_pids()

    def _look_for_knee(self, elapsed: float) -> None:
        """Evaluate the ramp's finished steps."""
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
                self._stop_arrivals()

    def _write_locust_tables(self) -> None:
        """Write locust's own tables as CSV files beside ours."""
        if self._recording is not None:
            base = str(self._recording.folder / "locust")
            locust_process.FineCSVFiles(self._env, locust_stats.PERCENTILES_TO_REPORT, base, full_history=True)()

    # ---- the end ----

    def _finish(self) -> None:
        """Complete the folder. Does nothing if called again for the same run."""
        recorded, assignment = self._recording, self._assignment
        if recorded is None or assignment is None:
            return
        if not self._is_distributed and self._env.generator is not None:
            self._record(self._env.generator.buffer.take())
            self._env.generator.close()
        self._recording = None
        gevent.killall(self._background)
        if lost := self._workers.ended() if self._workers else "":
            recorded.note(f"A worker exited before the run ended ({lost}); its later arrivals are missing.")
        if isinstance(self._profile.shape, Saturation):
            if not self._interrupted:
                self._look_for_knee(math.inf)  # the last step ends with the run
            recorded.note(self._knee.verdict())
            print(self._knee.verdict(), flush=True)
        with (recorded.folder / "locust_stats.csv").open("w", encoding="utf-8", newline="") as file:
            locust_process.FineCSV(self._env, locust_stats.PERCENTILES_TO_REPORT).requests_csv(csv.writer(file))
        started = assignment.start
        ended_at = min(now(), self._stopped_at or math.inf, started + self._profile.length)
        workers = self._options.expect_workers
        about = recording.about(self._profile, self._target, started, ended_at, locust_process.VERSION, workers)
        recorded.close(about)
        self._status = self._options.on_finished(recorded.folder) or (1 if lost else 0)
        if self._interrupted and self._options.web_port is not None:
            self._env.runner.quit()


def message_of(assignment: Assignment, share: int) -> dict[str, Any]:
    """The start message to a worker. It holds no key: each process gets the key through its environment."""
    target = assignment.target
    return {
        "start": assignment.start,
        "url": target.url,
        "model": target.model,
        "embedding_model": target.embedding_model,
        "kind": target.kind,
        "share": share,
        "shares": assignment.shares,
    }
