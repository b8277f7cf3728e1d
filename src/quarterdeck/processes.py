"""Process trees: listing the descendants of a process, and ending them all.

Ray and vLLM leave orphans (EngineCore and Worker hold gigabytes). A process that starts them calls `become_subreaper`
first, so that orphans become its children instead of process 1's; then `/proc` shows the whole tree, and `end_tree`
ends it. Linux only. A zombie counts as dead: process 1 may reap it late, and `kill -0` would report it alive.
"""

import ctypes
import os
import signal
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_DEAD_STATES = frozenset("ZXx")
_POLL_S = 0.02


@dataclass(frozen=True, slots=True)
class Process:
    """A process. `started` (clock ticks since boot) distinguishes it from a later one with the same pid."""

    pid: int
    parent: int
    state: str
    started: int
    name: str

    @property
    def is_alive(self) -> bool:
        return self.state not in _DEAD_STATES


def parse_stat(text: str) -> Process:
    """Parse `/proc/<pid>/stat`. The name is in parentheses and may contain spaces and parentheses."""
    head, _, tail = text.rpartition(")")
    pid, _, name = head.partition("(")
    fields = tail.split()
    return Process(pid=int(pid), parent=int(fields[1]), state=fields[0], started=int(fields[19]), name=name)


def process_table(proc: Path = Path("/proc")) -> dict[int, Process]:
    """Return every process of this pid namespace, including zombies."""
    table: dict[int, Process] = {}
    for entry in proc.iterdir():
        if not entry.name.isdigit():
            continue
        try:
            process = parse_stat((entry / "stat").read_text(encoding="utf-8", errors="replace"))
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue  # it ended after it was listed
        table[process.pid] = process
    return table


def under(roots: Iterable[int], table: Mapping[int, Process]) -> list[Process]:
    """Return the living descendants of `roots`, without the roots, parents first. Includes children of zombies."""
    children: dict[int, list[Process]] = {}
    for process in table.values():
        children.setdefault(process.parent, []).append(process)
    found: list[Process] = []
    seen = set(roots)
    queue = sorted(seen)
    while queue:
        for child in children.get(queue.pop(0), ()):
            if child.pid not in seen:
                seen.add(child.pid)
                queue.append(child.pid)
                if child.is_alive:
                    found.append(child)
    return found


def descendants(pid: int) -> list[Process]:
    """Return the living descendants of `pid`, without itself."""
    return under([pid], process_table())


def is_alive(pid: int) -> bool:
    """Whether a process with this pid runs. A zombie counts as dead."""
    process = process_table().get(pid)
    return process is not None and process.is_alive


def end_tree(pid: int, *, grace_s: float, kill_s: float = 10.0) -> list[Process]:
    """End the descendants of `pid`, and `pid` itself unless it is the caller.

    Returns the processes still alive: [] is success. SIGTERM to all, then, after `grace_s` seconds, SIGKILL repeatedly
    (a process may fork meanwhile) until none is left or `kill_s` seconds have passed. To let a door drain, send it
    SIGTERM and wait for it first. Blocks: call it in a thread from asyncio.
    """
    tree = _Tree(pid)
    tree.send(signal.SIGTERM)
    tree.wait(grace_s)
    deadline = time.monotonic() + kill_s
    while tree.living() and time.monotonic() < deadline:
        tree.send(signal.SIGKILL)
        tree.wait(_POLL_S)
    return tree.living()


def become_subreaper() -> None:
    """Make orphaned descendants children of this process. Not inherited by children."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def die_with_parent(sig: signal.Signals = signal.SIGTERM) -> None:
    """Have the kernel send `sig` to this process when its parent ends, however it ends.

    The parent is the *thread* that started this process: a supervisor starts its doors from its main thread. If the
    parent ended before this call, no signal is sent and this process belongs to process 1 or a subreaper: compare
    `os.getppid()` with the expected parent.
    """
    _prctl(_PR_SET_PDEATHSIG, int(sig))


class _Tree:
    """A root and every descendant seen so far: a child stays in the tree when its parent ends first."""

    def __init__(self, root: int) -> None:
        self._root = root
        self._known: dict[int, int] = {}
        table = process_table()
        if root in table and root != os.getpid():
            self._known[root] = table[root].started

    def living(self) -> list[Process]:
        table = process_table()
        members = [pid for pid, started in self._known.items() if pid in table and table[pid].started == started]
        for process in under([self._root, *members], table):
            self._known[process.pid] = process.started
        return [
            table[pid]
            for pid, started in self._known.items()
            if pid in table and table[pid].started == started and table[pid].is_alive
        ]

    def send(self, sig: signal.Signals) -> None:
        for process in self.living():
            try:
                os.kill(process.pid, sig)
            except ProcessLookupError:
                continue

    def wait(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while self.living() and time.monotonic() < deadline:
            time.sleep(_POLL_S)


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, value, 0, 0, 0) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
