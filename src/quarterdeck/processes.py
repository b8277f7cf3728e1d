"""The processes under us: who they are, and how to end every one.

Ray and vLLM leave children behind that their parents have forgotten (EngineCore and Worker hold gigabytes).
Whoever starts them calls `become_subreaper` first, so that an orphan becomes its child and not process 1's;
then `/proc` shows the whole tree, and `end_tree` ends it. Linux only. A zombie counts as dead: process 1 may
reap it late, and `kill -0` would call it alive.
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
    """A line of the process table. `started` (clock ticks since boot) tells a process from a later one with its pid."""

    pid: int
    parent: int
    state: str
    started: int
    name: str

    @property
    def is_alive(self) -> bool:
        return self.state not in _DEAD_STATES


def parse_stat(text: str) -> Process:
    """Read `/proc/<pid>/stat`. The name stands in parentheses and may hold spaces and parentheses itself."""
    head, _, tail = text.rpartition(")")
    pid, _, name = head.partition("(")
    fields = tail.split()
    return Process(pid=int(pid), parent=int(fields[1]), state=fields[0], started=int(fields[19]), name=name)


def process_table(proc: Path = Path("/proc")) -> dict[int, Process]:
    """Every process of this machine (of this pid namespace), zombies too."""
    table: dict[int, Process] = {}
    for entry in proc.iterdir():
        if not entry.name.isdigit():
            continue
        try:
            process = parse_stat((entry / "stat").read_text(encoding="utf-8", errors="replace"))
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue  # it ended between the listing and the reading
        table[process.pid] = process
    return table


def under(roots: Iterable[int], table: Mapping[int, Process]) -> list[Process]:
    """The living processes below `roots`, roots left out, parents first.

    A zombie's children count: it can still have some.
    """
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
    """The living processes below `pid`, without itself."""
    return under([pid], process_table())


def is_alive(pid: int) -> bool:
    """Whether a process with this pid runs. A zombie does not."""
    process = process_table().get(pid)
    return process is not None and process.is_alive


def end_tree(pid: int, *, grace_s: float, kill_s: float = 10.0) -> list[Process]:
    """End everything below `pid`, and `pid` itself unless that is the caller.

    Returns what is still alive: [] is success.

    SIGTERM to all at once, `grace_s` to comply; then SIGKILL, again and again (a process may fork while we
    look) until nobody is left or `kill_s` has passed. To let a door drain, send it SIGTERM and wait for it
    before calling this. Blocks: call it in a thread from asyncio.
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
    """From now on an orphan among our descendants becomes our child. Not inherited by children."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def die_with_parent(sig: signal.Signals = signal.SIGTERM) -> None:
    """Ask the kernel for `sig` when our parent ends, however it ends.

    The kernel means the parent's *thread* that started us: a supervisor starts its doors from its main thread.
    A parent that ended before this call sends nothing; it has left us to process 1 or to a subreaper, so
    compare `os.getppid()` with what was expected.
    """
    _prctl(_PR_SET_PDEATHSIG, int(sig))


class _Tree:
    """A root and all that was ever seen below it, so that a child stays ours when its parent ends before it."""

    def __init__(self, root: int) -> None:
        self._root = root
        self._known: dict[int, int] = {}
        table = process_table()
        if root in table and root != os.getpid():
            self._known[root] = table[root].started

    def living(self) -> list[Process]:
        table = process_table()
        ours = [pid for pid, started in self._known.items() if pid in table and table[pid].started == started]
        for process in under([self._root, *ours], table):
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
