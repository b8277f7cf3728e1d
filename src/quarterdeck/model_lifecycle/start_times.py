"""How long models take to start on this machine, kept in a file: the estimate that users are given.

A start that was seen before tells best. For another model the time grows with its size, at the pace of the starts that
were seen.
"""

import json
import logging
import os
from pathlib import Path
from statistics import median

log = logging.getLogger(__name__)

FIRST_GUESS_SECONDS = 60.0
"""For a first model of unknown size, on two slow cores. A GPU server takes about as long, for larger models."""
SECONDS_PER_GB = 8.0
"""Reading and copying weights, until a start was seen."""
MAX_KEPT = 200
LEAST_SECONDS = 3.0
"""Left for a start that takes longer than it should."""


class StartTimes:
    """Seconds by a key of the model's configuration, the latest last."""

    def __init__(self, path: Path | None) -> None:
        """`path`: a file, read and written here. None: nothing is kept."""
        self._path = path
        self._seen: dict[str, tuple[float, int]] = _read(path) if path is not None else {}

    def estimate(self, key: str, stored_bytes: int) -> float:
        """Seconds from the beginning of the start. `stored_bytes`: of its weights; 0: not known."""
        if (known := self._seen.get(key)) is not None:
            return known[0]
        gigabytes = stored_bytes / 1e9
        if not self._seen:
            return FIRST_GUESS_SECONDS + SECONDS_PER_GB * gigabytes
        base = median(seconds for seconds, _ in self._seen.values())
        size = median(stored for _, stored in self._seen.values()) / 1e9
        return base + SECONDS_PER_GB * max(0.0, gigabytes - size)

    def record(self, key: str, seconds: float, stored_bytes: int) -> None:
        """Blocks shortly. A file that can't be written costs the estimates of the next run."""
        self._seen.pop(key, None)
        self._seen[key] = (round(seconds, 1), stored_bytes)
        while len(self._seen) > MAX_KEPT:
            del self._seen[next(iter(self._seen))]
        if self._path is None:
            return
        scratch = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            scratch.write_text(json.dumps(self._seen), encoding="utf-8")
            scratch.replace(self._path)
        except OSError as error:
            log.warning("can't save start times: %s", error)


def left(estimate: float, elapsed: float) -> float:
    """Seconds until the end of a start. One that is late is expected to take a tenth of its time again."""
    return max(LEAST_SECONDS, estimate - elapsed, elapsed * 0.1 if elapsed > estimate else 0.0)


def _read(path: Path) -> dict[str, tuple[float, int]]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return {str(key): (float(seconds), int(stored)) for key, (seconds, stored) in found.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        log.warning("can't read %s, estimates start anew: %s", path, error)
        return {}
