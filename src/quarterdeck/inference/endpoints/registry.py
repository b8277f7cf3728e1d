"""All endpoints of this gateway: the sources joined into one set."""

import asyncio
from collections.abc import Sequence

from quarterdeck.inference.endpoints.endpoint import Endpoint
from quarterdeck.inference.endpoints.sources import EndpointSource, Index, joined


class EndpointRegistry:
    """Several sources as one, in their order."""

    def __init__(self, sources: Sequence[EndpointSource]) -> None:
        self._sources = sources
        self._parts: list[Index] = []
        """The sources' indexes that `_index` was built from."""
        self._index: Index = {}

    def all(self) -> Sequence[Endpoint]:
        """Every endpoint in any state."""
        return [endpoint for source in self._sources for endpoint in source.all()]

    def serving(self, name: str) -> Sequence[Endpoint]:
        """The endpoints that are ready for a model or an adapter. The same object as long as the set is the same."""
        sources, parts = self._sources, self._parts
        at = 0
        for source in sources:
            if at == len(parts) or source.index is not parts[at]:
                break
            at += 1
        if at != len(sources) or at != len(parts):
            self._parts = [source.index for source in sources]
            self._index = joined(self._parts, self._index)
        return self._index.get(name, ())

    async def run(self) -> None:
        """Follow all sources until cancelled."""
        async with asyncio.TaskGroup() as group:
            for source in self._sources:
                group.create_task(source.run())
