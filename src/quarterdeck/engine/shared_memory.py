"""Removes shared memory of killed processes.

vLLM's engine and its workers communicate through segments in /dev/shm and remove them at a normal exit. Killed, they
leave them behind. The names are in the memory maps of the processes that use them: read them while the processes live,
remove them once the processes have ended.
"""

from collections.abc import Iterable
from pathlib import Path

from quarterdeck.processes import Process

_PREFIXES = ("/dev/shm/psm_", "/dev/shm/sem.mp-")  # noqa: S108  # names in memory maps, not files created here


def segments(processes: Iterable[Process], proc: Path = Path("/proc")) -> set[Path]:
    """Return the POSIX shared memory and semaphores that Python processes among `processes` have open."""
    found: set[Path] = set()
    for process in processes:
        try:
            maps = (proc / str(process.pid) / "maps").read_text(encoding="utf-8", errors="replace")
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue  # it ended
        for line in maps.splitlines():
            name = line.rpartition(" ")[2]  # lines of removed segments end in " (deleted)"
            if name.startswith(_PREFIXES):
                found.add(Path(name))
    return found


def remove(paths: Iterable[Path]) -> None:
    for path in paths:
        path.unlink(missing_ok=True)
