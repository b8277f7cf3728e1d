"""One process under `up`: started, asked for its health, stopped, and its log kept small."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path

from quarterdeck import processes
from quarterdeck.cli.doors import Door

LOG_BYTES = 16 * 2**20
"""A log is begun anew beyond this; the one before is kept as `<name>.log.1`. 32 MiB a process at most."""
TAIL_LINES = 20
_POLL_S = 0.1


class StartError(Exception):
    """A part of the platform did not start; the message is for the person at the terminal."""


class Child:
    """A door's process. Its output goes to `<logs>/<name>.log`, which it holds open itself: it needs no reader."""

    def __init__(self, door: Door, logs: Path, is_healthy: Callable[[], Awaitable[bool]]) -> None:
        self.door = door
        self.log = logs / f"{door.name}.log"
        self._is_healthy = is_healthy
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    @property
    def status(self) -> int | None:
        """Its exit status, negative for a signal; None: it runs, or never did."""
        return self._process.returncode if self._process else None

    @property
    def outcome(self) -> str:
        """How it ended, in words."""
        code = self.status
        if code is None:
            return "runs"
        return f"ended by {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"

    async def start(self) -> None:
        """Start the process. Raises StartError where its program can't be run."""
        rotate(self.log, 0)
        supervisor = os.getpid()
        # In a session of its own Ctrl-C reaches only us; we then end the doors in their order.
        with self.log.open("ab") as log:
            try:
                self._process = await asyncio.create_subprocess_exec(
                    *self.door.argv,
                    env=dict(self.door.environ),
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                    preexec_fn=lambda: _die_with(supervisor),
                )
            except OSError as error:
                raise StartError(f"{self.door.name} can't be started: {error}") from error

    async def ready(self) -> None:
        """Wait for its first good health. Raises StartError where it ends before, or takes too long."""
        try:
            async with asyncio.timeout(self.door.start_s):
                while not await self._is_healthy():
                    if not self.is_running:
                        raise StartError(self.epitaph())
                    await asyncio.sleep(_POLL_S)
        except TimeoutError:
            raise StartError(
                f"{self.door.name} is not healthy after {self.door.start_s:.0f} s\n{self.tail()}"
            ) from None

    async def ended(self) -> None:
        """Wait until the process is gone."""
        if self._process:
            await self._process.wait()

    async def stop(self, hurry: asyncio.Event) -> None:
        """SIGTERM, its grace, then the end of its whole tree. With `hurry` set the grace is over at once."""
        if self._process is None:
            return
        if self.is_running:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGTERM)
            waits = [asyncio.ensure_future(self._process.wait()), asyncio.ensure_future(hurry.wait())]
            await asyncio.wait(waits, timeout=self.door.grace_s, return_when=asyncio.FIRST_COMPLETED)
            for wait in waits:
                wait.cancel()
        if self.is_running:
            await asyncio.to_thread(processes.end_tree, self._process.pid, grace_s=0)
            await self._process.wait()

    def tail(self) -> str:
        """The last lines of its log, for a person."""
        return f"{last_lines(self.log, TAIL_LINES)}\n({self.log})"

    def epitaph(self) -> str:
        """How it ended and what it said last."""
        return f"{self.door.name} {self.outcome}; its last lines:\n{self.tail()}"


def _die_with(supervisor: int) -> None:
    """Runs in the child before its program: should `up` be killed, the kernel sends SIGTERM here."""
    processes.die_with_parent(signal.SIGTERM)
    if os.getppid() != supervisor:
        os._exit(1)  # it ended before we could ask


def last_lines(log: Path, count: int) -> str:
    """The end of a file, without reading all of it."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 32 * 1024))
            text = file.read().decode("utf-8", errors="replace")
    except OSError:
        return "(no log)"
    return "\n".join(text.splitlines()[-count:]) or "(it said nothing)"


def rotate(log: Path, limit: int) -> None:
    """Begin the log anew where it is larger than `limit`. The process that writes appends, so it goes on at the top."""
    try:
        if log.stat().st_size <= limit:
            return
        previous = log.with_name(f"{log.name}.1")
        with log.open("rb") as old, previous.open("wb") as new:
            os.chmod(previous, 0o600)
            while piece := old.read(2**20):
                new.write(piece)
        os.truncate(log, 0)
    except FileNotFoundError:
        return
