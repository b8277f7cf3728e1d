"""Downloads that were asked for without a model to serve: `quarterdeck models pull` on a platform elsewhere.

An engine's door owns one and serves it at `/weights`.
"""

import asyncio
import logging
from dataclasses import dataclass, field
from typing import Any

from quarterdeck.weights.downloads import Downloads
from quarterdeck.weights.errors import WeightsError
from quarterdeck.weights.local import Weights
from quarterdeck.weights.progress import Progress

log = logging.getLogger(__name__)

MAX_KEPT = 50
"""Pulls that are listed, the oldest finished ones go first."""


class TooManyPullsError(Exception):
    """MAX_KEPT downloads are running."""


@dataclass(slots=True)
class _Pull:
    source: str
    revision: str | None
    task: "asyncio.Task[None] | None" = None
    progress: Progress = field(default_factory=Progress)
    weights: Weights | None = None
    error: WeightsError | None = None
    is_cancelled: bool = False

    def observe(self, progress: Progress) -> None:
        self.progress = progress

    @property
    def state(self) -> str:
        if self.weights is not None:
            return "complete"
        if self.is_cancelled:
            return "cancelled"
        return "downloading" if self.error is None else "failed"


class Pulls:
    """Belongs to one event loop."""

    def __init__(self, downloads: Downloads) -> None:
        self._downloads = downloads
        self._pulls: dict[tuple[str, str | None], _Pull] = {}

    def start(self, source: str, revision: str | None = None) -> dict[str, Any]:
        """Download in the background; a failed one is tried again. Raises TooManyPullsError."""
        key = (source, revision)
        found = self._pulls.get(key)
        if found is None or found.state != "downloading":
            self._pulls.pop(key, None)
            self._make_room()
            found = self._pulls[key] = _Pull(source, revision)
            found.task = asyncio.create_task(self._run(found))
        return _row(found)

    def cancel(self, source: str, revision: str | None = None) -> bool:
        """Stop a download; what it has is kept. Whether one was running."""
        found = self._pulls.get((source, revision))
        if found is None or found.task is None or found.state != "downloading":
            return False
        found.is_cancelled = True
        found.task.cancel()
        return True

    def listing(self) -> list[dict[str, Any]]:
        """The downloads, newest last."""
        return [_row(each) for each in self._pulls.values()]

    async def close(self) -> None:
        """End every download."""
        tasks = [each.task for each in self._pulls.values() if each.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _make_room(self) -> None:
        if len(self._pulls) < MAX_KEPT:
            return
        for key, each in self._pulls.items():
            if each.state != "downloading":
                del self._pulls[key]
                return
        raise TooManyPullsError

    async def _run(self, pull: _Pull) -> None:
        try:
            pull.weights = await self._downloads.fetch(pull.source, pull.revision, pull.observe)
        except WeightsError as error:
            pull.error = error
            log.warning("pull of %s: %s", pull.source, error)


def _row(pull: _Pull) -> dict[str, Any]:
    weights, error = pull.weights, pull.error
    return {
        "source": pull.source,
        "requested_revision": pull.revision,
        "revision": pull.revision if weights is None else weights.revision,
        "state": pull.state,
        "done": pull.progress.done if weights is None else weights.size,
        "total": pull.progress.total if weights is None else weights.size,
        "bytes_per_second": pull.progress.rate if pull.state == "downloading" else None,
        "folder": None if weights is None else str(weights.folder),
        "error": None if error is None else {"code": error.code, "message": str(error)},
    }
