"""A runtime that does nothing by itself: tests say what it observes."""

import asyncio
from collections.abc import Mapping

from quarterdeck.model_lifecycle.desired import Desired, desired_models
from quarterdeck.model_lifecycle.gpus import GpuNeed, Gpus
from quarterdeck.model_lifecycle.memory import Need
from quarterdeck.model_lifecycle.runtime import (
    Observed,
    Prepared,
    Progress,
    Report,
    RuntimeUnavailableError,
    StartFailure,
)
from quarterdeck.settings.models import ModelConfig


class FakeRuntime:
    def __init__(self, max_starting: int | None = None) -> None:
        self.max_starting = max_starting
        self.apps: dict[str, Observed] = {}
        self.started: list[str] = []
        self.stopped: list[str] = []
        self.active: dict[str, int] = {}
        self.free: int | None = None
        self.need: dict[str, int] = {}
        self.all_gpus: Gpus | None = None
        self.gpu_need: dict[str, GpuNeed] = {}
        """By model."""
        self.failures: dict[str, StartFailure] = {}
        """Of `prepare`, by model."""
        self.downloads: dict[str, asyncio.Event] = {}
        """`prepare` waits for it, by model."""
        self.stops_fail = 0
        self.hold_stop: asyncio.Event | None = None

    def observed(self) -> Mapping[str, Observed]:
        return self.apps

    def free_bytes(self) -> int | None:
        return self.free

    def gpus(self) -> Gpus | None:
        return self.all_gpus

    async def prepare(self, model: Desired, report: Report) -> Prepared:
        if (download := self.downloads.get(model.name)) is not None:
            report(Progress("downloading", "downloading 34 %", 0.34, 20.0))
            await download.wait()
        if (failure := self.failures.get(model.name)) is not None:
            raise failure
        need = self.need.get(model.digest, self.need.get(model.name))
        gpu_need = self.gpu_need.get(model.name)
        return Prepared("/models/x", Need(need, 0, 0) if need is not None else None, gpu_need=gpu_need)

    async def start(self, app: str, model: Desired, prepared: Prepared) -> None:
        self.started.append(app)
        self.apps[app] = Observed("starting")

    async def stop(self, app: str) -> None:
        if self.hold_stop is not None:
            await self.hold_stop.wait()
        if self.stops_fail:
            self.stops_fail -= 1
            raise RuntimeUnavailableError("Ray is away")
        self.stopped.append(app)
        self.apps.pop(app, None)

    async def active_requests(self, app: str) -> int:
        return self.active.get(app, 0)


def models(*names: str, **engine: object) -> dict[str, Desired]:
    """Desired models; `engine`: fields of all their engines."""
    return desired_models(
        ModelConfig.model_validate({"name": name, "engine": {"source": f"org/{name}", **engine}}) for name in names
    )
