"""What the processes of a replica print: kept in a file of its model, and read for how far its start is.

Ray writes the output of each worker into its session folder, whose name changes with every start and which is deleted
at the next. Here it is copied as it grows: `<state>/logs/models/<model>.log`.
"""

import logging
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from quarterdeck.model_lifecycle.runtime import Progress

log = logging.getLogger(__name__)

MAX_BYTES = 8 << 20
"""Of a model's log; then it is moved to `.1`, and that is replaced."""
MAX_READ = 1 << 20
"""Of one file at once: the rest follows at the next look."""

_OUTPUTS = ("out", "err")
_SHARDS = re.compile(r"checkpoint shards:\s+(\d+)% Completed")
_PHASES: tuple[tuple[re.Pattern[str], Progress], ...] = (
    (re.compile(r"Warming up the replica"), Progress("warming_up")),
    (
        re.compile(r"torch\.compile takes|Dynamo bytecode|Compiling a graph|Start compiling|Capturing CUDA graph"),
        Progress("compiling"),
    ),
    (re.compile(r"Starting to load model|Loading (?:weights|model weights)"), Progress("loading")),
    (re.compile(r"Initializing a V\d+ LLM engine"), Progress("loading", "starting the engine")),
)
"""vLLM's own lines, the latest phase first."""


@dataclass(slots=True)
class _Replica:
    target: Path
    offsets: dict[Path, int] = field(default_factory=dict)
    progress: Progress | None = None


class ReplicaLogs:
    """Follows the output of replicas by the process id of their actor."""

    def __init__(self, sessions: Path | None, folder: Path) -> None:
        """`sessions`: the folder in which Ray makes its sessions. None: of a cluster elsewhere, there are no files.
        `folder`: where the models' logs are kept."""
        self._sessions, self._folder = sessions, folder
        self._replicas: dict[int, _Replica] = {}

    def path_of(self, slug: str) -> Path:
        return self._folder / f"{slug}.log"

    def progress_of(self, pid: int) -> Progress | None:
        """The last phase that a replica's output named."""
        replica = self._replicas.get(pid)
        return replica.progress if replica is not None else None

    def follow(self, replicas: dict[int, str]) -> None:
        """Copy what was added since the last call. `replicas`: process ids with the slug of their model. Blocks."""
        if self._sessions is None:
            return
        self._replicas = {
            pid: self._replicas.get(pid) or _Replica(self.path_of(slug)) for pid, slug in replicas.items()
        }
        for pid, replica in self._replicas.items():
            for path in self._files(pid, replica):
                try:
                    self._copy(path, replica)
                except OSError as error:  # a full disk; the output of the engine stays where Ray puts it
                    log.warning("can't copy %s: %s", path, error)

    def _files(self, pid: int, replica: _Replica) -> Iterable[Path]:
        """Searched for until both are found: Ray creates them with the process's first line."""
        if len(replica.offsets) < len(_OUTPUTS) and self._sessions is not None:
            for path in sorted(self._sessions.glob(f"session_2*/logs/worker-*-{pid}.*")):
                replica.offsets.setdefault(path, 0)
        return list(replica.offsets)

    def _copy(self, path: Path, replica: _Replica) -> None:
        with path.open("rb") as source:
            source.seek(replica.offsets[path])
            added = source.read(MAX_READ)
        if not added:
            return
        replica.offsets[path] += len(added)
        target = replica.target
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if target.exists() and target.stat().st_size > MAX_BYTES:
            target.replace(target.with_name(f"{target.name}.1"))
        descriptor = os.open(target, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        with open(descriptor, "ab") as copy:
            copy.write(added)
        for line in added.decode("utf-8", errors="replace").splitlines():
            replica.progress = phase_of(line) or replica.progress


def phase_of(line: str) -> Progress | None:
    """What a line of vLLM's output says of the start. None: nothing."""
    if (shards := _SHARDS.search(line)) is not None:
        percent = int(shards.group(1))
        return Progress("loading", f"loading weights {percent} %", percent / 100)
    return next((progress for pattern, progress in _PHASES if pattern.search(line)), None)
