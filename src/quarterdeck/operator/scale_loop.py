"""Looks at the demand after each answer of a gateway, and queues the Models that need another number of replicas."""

import asyncio
from collections.abc import Callable, Mapping

from quarterdeck.kube.resources.model import Model
from quarterdeck.kube.resources.object import InvalidObjectError
from quarterdeck.operator.cache import ObjectCache
from quarterdeck.operator.manifests import Key, is_deleting
from quarterdeck.operator.reconcile import ModelReconciler

IDLE_SECONDS = 1.0
"""Longest time between two looks: what is idle for long enough goes to zero without an answer."""
PAUSE_SECONDS = 0.2


class ScaleLoop:
    """`observe` takes the present Models, `add` the key of one to reconcile. Nothing is done while not `is_leading`."""

    def __init__(
        self,
        cache: ObjectCache,
        models: ModelReconciler,
        *,
        is_leading: Callable[[], bool],
        observe: Callable[[Mapping[str, Model]], None],
        add: Callable[[Key], None],
    ) -> None:
        self._cache, self._models = cache, models
        self._is_leading, self._observe, self._add = is_leading, observe, add
        self._changed = asyncio.Event()

    def mark(self) -> None:
        """A gateway has answered."""
        self._changed.set()

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            try:
                async with asyncio.timeout(IDLE_SECONDS):
                    await self._changed.wait()
            except TimeoutError:
                pass
            self._changed.clear()
            if self._is_leading():
                self.once()
            await asyncio.sleep(PAUSE_SECONDS)

    def once(self) -> None:
        models: dict[str, Model] = {}
        for manifest in self._cache.of_kind(Model.kind):
            if not is_deleting(manifest):
                try:
                    model = self._models.parse(manifest)
                except InvalidObjectError:
                    continue
                models[model.name] = model
        self._observe(models)
        for name, model in models.items():
            if self._models.wants_scaling(model):
                self._add(Key(Model.kind, name))
