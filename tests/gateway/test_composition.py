"""The composed gateway: a reload reaches the parts that read configuration."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.gateway.fakes import config

from quarterdeck.gateway.composition import compose
from quarterdeck.gateway.lifecycle import Service
from quarterdeck.net.descriptors import DescriptorLimit
from quarterdeck.settings.config import Config
from quarterdeck.settings.environment import Environment


class FakeSource:
    """Changes to each configuration that a test puts into `queue`."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[Config] = asyncio.Queue()

    def read(self) -> Config:
        return config()

    async def changed(self) -> Config:
        return await self.queue.get()

    def refresh(self) -> None: ...


class Bench:
    def __init__(self, state: Path) -> None:
        self.source = FakeSource()
        environment = Environment.read({"QUARTERDECK_STATE": str(state), "QUARTERDECK_PORT": "0"})
        self.service: Service = compose(environment, self.source, self.source.read(), DescriptorLimit(1024, 1024))

    async def reload(self, **gateway: Any) -> None:
        reloaded = asyncio.Event()
        self.service.config.subscribe(lambda new: reloaded.set())
        self.source.queue.put_nowait(config(**gateway))
        await reloaded.wait()


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    made = Bench(tmp_path)
    task = asyncio.create_task(made.service.reloader.run())
    yield made
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    for close in made.service.connections:
        await close()


async def test_a_reload_changes_the_lease_of_reservations(bench: Bench) -> None:
    assert bench.service.settlement.lease_seconds == 60
    await bench.reload(reservation_lease_seconds=5.0)
    assert bench.service.settlement.lease_seconds == 5


async def test_a_reload_changes_what_the_drain_reads(bench: Bench) -> None:
    await bench.reload(drain_seconds=1.5)
    assert bench.service.config.current.gateway.drain_seconds == 1.5
