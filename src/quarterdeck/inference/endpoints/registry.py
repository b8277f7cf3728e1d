"""All endpoints of this gateway: the sources joined into one set."""

import asyncio
from collections.abc import Sequence

from quarterdeck.inference.endpoints.endpoint import Endpoint
from quarterdeck.inference.endpoints.sources import EndpointSource, Index, joined
from quarterdeck.model_lifecycle.status import ModelStatus


class EndpointRegistry:
    """Several sources as one, in their order."""

    def __init__(self, sources: Sequence[EndpointSource]) -> None:
        self._sources = sources
        self._parts: list[tuple[EndpointSource, Index | None]] = [(source, None) for source in sources]
        """The sources with their indexes that `_index` was built from."""
        self._index: Index = {}

    def all(self) -> Sequence[Endpoint]:
        """Every endpoint in any state."""
        return [endpoint for source in self._sources for endpoint in source.all()]

    def serving(self, name: str) -> Sequence[Endpoint]:
        """The endpoints that are ready for a model or an adapter. The same object as long as the set is the same."""
        parts = self._parts
        if len(parts) != len(self._sources):
            self._join()
        for source, index in parts:
            if source.index is not index:
                self._join()
                break
        return self._index.get(name, ())

    def unavailable(self, name: str) -> str:
        """Why no endpoint will become ready for a model or an adapter, in a sentence. Empty: one may."""
        for source in self._sources:
            if reason := source.unavailable.get(name):
                return reason
        return ""

    def status(self, name: str) -> ModelStatus | None:
        """What the engine's door says of a model as a whole. None: nothing."""
        for source in self._sources:
            if (found := source.statuses.get(name)) is not None:
                return found
        return None

    def _join(self) -> None:
        indexes = [source.index for source in self._sources]
        self._parts = list(zip(self._sources, indexes, strict=True))
        self._index = joined(indexes, self._index)

    async def run(self) -> None:
        """Follow all sources until cancelled."""
        async with asyncio.TaskGroup() as group:
            for source in self._sources:
                group.create_task(source.run())
