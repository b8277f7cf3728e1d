"""The state folder: its lock, and clean-up of processes left over by a killed run.

Every process of a run has QUARTERDECK_RUN, a hash of the folder, in its environment, and its children inherit it. So
`/proc` shows which run a process belongs to even after its parents have exited.
"""

import fcntl
import hashlib
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from quarterdeck import processes
from quarterdeck.cli.machine_checks import low_space

RUN_VARIABLE = "QUARTERDECK_RUN"
SUBFOLDERS = ("redis", "logs", "spool")


class StateError(Exception):
    """The state folder can't be used; the message says why."""


def run_id(state: Path) -> str:
    """A hash of the folder; equal for all runs on it."""
    return hashlib.sha256(os.fsencode(state.resolve())).hexdigest()[:16]


def prepare(state: Path) -> list[str]:
    """Create the folder and its subfolders with mode 0700. Returns warnings about those that exist.

    Raises StateError if another user owns one or can write to it. The mode of an existing folder is not changed: it may
    be shared on purpose, and others may have read it already.
    """
    warnings = []
    try:
        for folder in (state, *(state / name for name in SUBFOLDERS)):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            problem = access_problem(folder)
            if problem is not None and problem.is_fatal:
                raise StateError(f"{problem}. Nothing was changed")
            if problem is not None:
                warnings.append(str(problem))
            if not os.access(folder, os.W_OK | os.X_OK):
                raise StateError(f"cannot write to {folder}: it is read-only")
        if (text := low_space(state)) is not None:
            warnings.append(text)
    except OSError as error:
        raise StateError(f"cannot create the state folder {state}: {error.strerror or error}") from error
    return warnings


@dataclass(frozen=True, slots=True)
class AccessProblem:
    """Why other users can reach a folder of this one."""

    text: str
    is_fatal: bool

    def __str__(self) -> str:
        return self.text


def access_problem(folder: Path) -> AccessProblem | None:
    """Who else can use the folder. Raises OSError if it does not exist."""
    status = folder.stat()
    mode = f"mode {stat.S_IMODE(status.st_mode):04o}"
    if status.st_uid != os.geteuid():
        return AccessProblem(
            f"{folder} belongs to another user (uid {status.st_uid}): set QUARTERDECK_STATE to another folder", True
        )
    if status.st_mode & 0o022:
        return AccessProblem(f"{folder} is writable by other users ({mode}): run `chmod 700 {folder}`", True)
    if status.st_mode & 0o055:
        return AccessProblem(f"{folder} is readable by other users ({mode}): run `chmod 700 {folder}`", False)
    return None


@contextmanager
def locked(state: Path) -> Iterator[None]:
    """Lock the folder for this process; the kernel releases the lock when it exits. Raises StateError."""
    with (state / "up.lock").open("a+", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise StateError(f"the platform is already running (pid {lock.read().strip() or '?'}, {state})") from None
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        yield


def is_locked(state: Path) -> bool:
    """Whether `up` is running on this folder."""
    try:
        with (state / "up.lock").open("r", encoding="utf-8") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def holder(state: Path) -> int | None:
    """The pid of `up` on this folder. None: it is not running."""
    if not is_locked(state):
        return None
    try:
        return int((state / "up.lock").read_text(encoding="utf-8"))
    except (OSError, ValueError):  # it has just started, or ended
        return None


def leftover_pids(state: Path, proc: Path = Path("/proc")) -> list[int]:
    """Running processes of runs on this folder, except this one and its ancestors."""
    mark = f"{RUN_VARIABLE}={run_id(state)}".encode()
    table = processes.process_table(proc)
    ancestors, pid = set(), os.getpid()
    while pid in table and pid not in ancestors:
        ancestors.add(pid)
        pid = table[pid].parent
    return [p.pid for p in table.values() if p.is_alive and p.pid not in ancestors and mark in _environ(proc, p.pid)]


def stop_leftovers(state: Path, *, grace_s: float = 8.0) -> int:
    """Stop leftover processes and return their number. Raises StateError if some do not exit. Requires the lock."""
    found = leftover_pids(state)
    for pid in found:
        _terminate(pid)
    deadline = time.monotonic() + grace_s
    while leftover_pids(state) and time.monotonic() < deadline:
        time.sleep(0.05)
    for pid in leftover_pids(state):
        processes.end_tree(pid, grace_s=0)
    if still := leftover_pids(state):
        raise StateError(f"processes of an earlier run do not exit: {', '.join(map(str, still))}")
    return len(found)


def _environ(proc: Path, pid: int) -> list[bytes]:
    try:
        return (proc / str(pid) / "environ").read_bytes().split(b"\0")
    except OSError:
        return []  # another user's process, or it has exited


def _terminate(pid: int) -> None:
    try:
        os.kill(pid, 15)
    except ProcessLookupError:
        return
