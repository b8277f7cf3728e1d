"""Models added, changed and removed by API: written into the folder of drop-ins, and in force when the call returns."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Concatenate, ParamSpec, TypeVar

from quarterdeck.errors import ConflictError, ServiceUnavailableError
from quarterdeck.gateway.engine_door import EngineDoor
from quarterdeck.gateway.engine_figures import EngineFigures
from quarterdeck.inference.routing.directory import Directory
from quarterdeck.resources.models.added import AddedModels
from quarterdeck.settings.config import Config
from quarterdeck.settings.live import Live
from quarterdeck.settings.source import in_thread

IN_FORCE_SECONDS = 10.0
"""How long a call waits until this gateway follows the folder. A refused quarterdeck.yaml can keep it from that."""
POLL_SECONDS = 0.02

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ModelManagement:
    """What the routes of models use."""

    added: AddedModels | None
    """None: in a cluster, where models are objects."""
    directory: Live[Directory]
    refresh: Callable[[], None]
    """Makes the gateway read its configuration now."""
    figures: EngineFigures
    door: EngineDoor | None
    """None: no engine of this platform."""

    async def change(self, change: "Callable[Concatenate[AddedModels, P], T]", *args: P.args, **kwargs: P.kwargs) -> T:
        """Carry out a method of AddedModels, and wait until it is in force. Raises APIError."""
        if self.added is None:
            raise ConflictError(
                "In a cluster, models are Model objects: use `kubectl apply` (docs/kubernetes.md).",
                code="managed_by_cluster",
            )
        before = self.directory.current.config
        result: T = await in_thread(partial(change, self.added, *args, **kwargs))
        self.refresh()
        await self._in_force(before)
        return result

    async def _in_force(self, before: Config) -> None:
        """Wait for the next configuration."""
        try:
            async with asyncio.timeout(IN_FORCE_SECONDS):
                while self.directory.current.config is before:  # noqa: ASYNC110  # one call of an admin at a time
                    await asyncio.sleep(POLL_SECONDS)
        except TimeoutError:
            raise ServiceUnavailableError(
                "The change is saved and not in force: the gateway refuses the configuration; /readyz says why.",
                code="not_in_force",
            ) from None

    def require_door(self) -> EngineDoor:
        """Raises ConflictError."""
        if self.door is None:
            raise ConflictError("This platform has no engine of its own that could download models.", code="no_engine")
        return self.door
