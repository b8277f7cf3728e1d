"""The state folder: who may use it now, and what a run that was killed has left behind.

Every process of a run carries QUARTERDECK_RUN, a hash of the folder, in its environment, and its children inherit it:
so `/proc` shows whose they are, even when their parents are long gone.
"""

import fcntl
import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from quarterdeck import processes

RUN_VARIABLE = "QUARTERDECK_RUN"


class StateError(Exception):
    """The folder can't be used; the message says why."""


def run_id(state: Path) -> str:
    """The same for every run on this folder."""
    return hashlib.sha256(os.fsencode(state.resolve())).hexdigest()[:16]


def prepare(state: Path) -> None:
    """The folder and its parts, for this user only. Raises StateError."""
    try:
        for folder in (state, state / "redis", state / "logs", state / "spool"):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            folder.chmod(0o700)
    except OSError as error:
        raise StateError(f"the state folder can't be made: {error}") from error


@contextmanager
def locked(state: Path) -> Iterator[None]:
    """Holds the folder for this process; the kernel lets go of it however the process ends. Raises StateError."""
    with (state / "up.lock").open("a+", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise StateError(f"the platform is up already (process {lock.read().strip() or '?'}, {state})") from None
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        yield


def is_locked(state: Path) -> bool:
    """Whether an `up` runs on this folder."""
    try:
        with (state / "up.lock").open("r", encoding="utf-8") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def left_over(state: Path, proc: Path = Path("/proc")) -> list[int]:
    """Living processes of runs on this folder, except us and those who started us."""
    mark = f"{RUN_VARIABLE}={run_id(state)}".encode()
    table = processes.process_table(proc)
    ours, pid = set(), os.getpid()
    while pid in table and pid not in ours:
        ours.add(pid)
        pid = table[pid].parent
    return [p.pid for p in table.values() if p.is_alive and p.pid not in ours and mark in _environ(proc, p.pid)]


def end_left_over(state: Path, *, grace_s: float = 8.0) -> int:
    """End them; how many there were. Raises StateError where some won't go. Only the lock's holder may call it."""
    found = left_over(state)
    for pid in found:
        _terminate(pid)
    deadline = time.monotonic() + grace_s
    while left_over(state) and time.monotonic() < deadline:
        time.sleep(0.05)
    for pid in left_over(state):
        processes.end_tree(pid, grace_s=0)
    if still := left_over(state):
        raise StateError(f"processes of an earlier run won't end: {', '.join(map(str, still))}")
    return len(found)


def _environ(proc: Path, pid: int) -> list[bytes]:
    try:
        return (proc / str(pid) / "environ").read_bytes().split(b"\0")
    except OSError:
        return []  # another user's, or it ended meanwhile


def _terminate(pid: int) -> None:
    try:
        os.kill(pid, 15)
    except ProcessLookupError:
        return
