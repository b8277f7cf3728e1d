"""Shared memory that killed processes leave behind.

vLLM's engine and its workers talk through segments in /dev/shm and remove them when they end by themselves. Ended by
force they don't, and each start would leave another. The names stand in the maps of who uses them, so: note them while
the processes live, remove them when the processes are gone.
"""

from collections.abc import Iterable
from pathlib import Path

from quarterdeck.processes import Process

_PREFIXES = ("/dev/shm/psm_", "/dev/shm/sem.mp-")  # noqa: S108  # names in maps, not files that we make


def segments(processes: Iterable[Process], proc: Path = Path("/proc")) -> set[Path]:
    """The POSIX shared memory that Python processes among `processes` have made or opened, and their semaphores."""
    found: set[Path] = set()
    for process in processes:
        try:
            maps = (proc / str(process.pid) / "maps").read_text(encoding="utf-8", errors="replace")
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue  # it ended
        for line in maps.splitlines():
            name = line.rpartition(" ")[2]  # " (deleted)" ends the lines of those that are gone already
            if name.startswith(_PREFIXES):
                found.add(Path(name))
    return found


def remove(paths: Iterable[Path]) -> None:
    for path in paths:
        path.unlink(missing_ok=True)
