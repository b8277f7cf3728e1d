"""A process managed by `up`: start, health, stop and log rotation."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import BinaryIO, Literal

from quarterdeck import processes
from quarterdeck.cli.process_plan import ProcessSpec

LOG_BYTES = 16 * 2**20
"""Log size that triggers rotation; one old log is kept as `<name>.log.1`. At most 32 MiB per process."""
TAIL_LINES = 20
_POLL_S = 0.1


class StartError(Exception):
    """A part of the platform did not start; the message is shown in the terminal."""


class ManagedProcess:
    """A child process. It writes its output to `<logs>/<name>.log` itself, so `up` need not read a pipe."""

    def __init__(self, spec: ProcessSpec, logs: Path, is_healthy: Callable[[], Awaitable[bool]]) -> None:
        self.spec = spec
        self.log = logs / f"{spec.name}.log"
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
        """Exit status, negative for a signal. None: running or never started."""
        return self._process.returncode if self._process else None

    @property
    def outcome(self) -> str:
        """How it ended, as text."""
        code = self.status
        if code is None:
            return "is running"
        return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"exited with status {code}"

    async def start(self) -> None:
        """Start the process. Raises StartError if its program can't be run."""
        rotate(self.log, 0)
        supervisor = os.getpid()
        # Own session: Ctrl-C reaches only `up`, which then stops the processes in order.
        with open_private(self.log, "ab") as log:
            try:
                self._process = await asyncio.create_subprocess_exec(
                    *self.spec.argv,
                    env=dict(self.spec.environ),
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                    umask=self.spec.umask,
                    preexec_fn=lambda: _die_with(supervisor),
                )
            except OSError as error:
                raise StartError(f"cannot start {self.spec.name}: {error.strerror or error}") from error

    async def ready(self) -> None:
        """Wait for the first successful health check. Raises StartError if it exits before, or takes too long."""
        try:
            async with asyncio.timeout(self.spec.start_s):
                while not await self._is_healthy():
                    if not self.is_running:
                        raise StartError(self.exit_report())
                    await asyncio.sleep(_POLL_S)
        except TimeoutError:
            raise StartError(
                f"{self.spec.name} is not healthy after {self.spec.start_s:.0f} s\n{self.tail()}"
            ) from None

    async def ended(self) -> None:
        """Wait until the process has exited."""
        if self._process:
            await self._process.wait()

    async def stop(self, hurry: asyncio.Event) -> None:
        """Send SIGTERM, wait for the grace period, then kill the process tree. `hurry` ends the grace period."""
        if self._process is None:
            return
        if self.is_running:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGTERM)
            waits = [asyncio.ensure_future(self._process.wait()), asyncio.ensure_future(hurry.wait())]
            await asyncio.wait(waits, timeout=self.spec.grace_s, return_when=asyncio.FIRST_COMPLETED)
            for wait in waits:
                wait.cancel()
        if self.is_running:
            await asyncio.to_thread(processes.end_tree, self._process.pid, grace_s=0)
            await self._process.wait()

    def tail(self) -> str:
        """The last lines of its log."""
        return f"{last_lines(self.log, TAIL_LINES)}\n({self.log})"

    def exit_report(self) -> str:
        """How it ended, with the last lines of its log."""
        return f"{self.spec.name} {self.outcome}; last log lines:\n{self.tail()}"


def open_private(path: Path, mode: Literal["ab", "wb"]) -> BinaryIO:
    """A file that only this user can read: logs have what callers and models send."""
    return open(path, mode, opener=lambda name, flags: os.open(name, flags, 0o600))


def _die_with(supervisor: int) -> None:
    """Runs in the child before exec. If `up` is killed, the kernel sends the child SIGTERM."""
    processes.die_with_parent(signal.SIGTERM)
    if os.getppid() != supervisor:
        os._exit(1)  # `up` has already exited


FULL_BYTES = 64 * 1024
"""A disk with less space is called full where a log is empty: what could not be written took more."""


def last_lines(log: Path, count: int) -> str:
    """The last lines of a file, without reading all of it."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 32 * 1024))
            text = file.read().decode("utf-8", errors="replace")
    except OSError:
        return "(no log)"
    return "\n".join(text.splitlines()[-count:]) or _why_empty(log.parent)


def _why_empty(folder: Path) -> str:
    disk = os.statvfs(folder)
    is_full = disk.f_bavail * disk.f_frsize < FULL_BYTES
    return f"(empty log: there is no space left in {folder})" if is_full else "(empty log)"


def rotate(log: Path, limit: int) -> None:
    """Move a log larger than `limit` bytes to `.1` and truncate it. Its writer appends, so it continues at the top."""
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
