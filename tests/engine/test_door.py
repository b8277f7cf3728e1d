"""The door starts Ray with the first model, and notices a dead one."""

import asyncio
import sys
from pathlib import Path

import httpx
from tests.engine.fake_ray import FakeRay

from quarterdeck.engine.deployer import Deployer
from quarterdeck.engine.door import Door, missing_daemons
from quarterdeck.engine.machine import Machine
from quarterdeck.engine.replica_client import ReplicaClient
from quarterdeck.engine.replica_logs import ReplicaLogs
from quarterdeck.engine.sources import Sources
from quarterdeck.model_lifecycle.start_times import StartTimes
from quarterdeck.processes import Process
from quarterdeck.settings.engine import EngineDoorSettings
from quarterdeck.settings.models import ModelConfig
from quarterdeck.weights.downloads import Downloads

CHAT = ModelConfig.model_validate({"name": "chat", "engine": {"source": "./nowhere"}})
STOPPED = ModelConfig.model_validate({"name": "chat", "stopped": True, "engine": {"source": "./nowhere"}})


def test_a_ray_without_one_of_its_two_daemons_is_lost() -> None:
    raylet, gcs = (Process(pid, 1, "S", 1, name) for pid, name in ((2, "raylet"), (3, "gcs_server")))
    assert missing_daemons([raylet, gcs]) == ""
    assert missing_daemons([gcs]) == "raylet"
    assert missing_daemons([]) == "gcs_server and raylet"


def a_door(folder: Path, ray: FakeRay, *models: ModelConfig) -> Door:
    settings = EngineDoorSettings("127.0.0.1", None, 0.1, 0.1, (folder,), folder / "copies", None)
    replicas = ReplicaClient(httpx.AsyncClient(transport=httpx.MockTransport(lambda _: httpx.Response(200))))
    return Door(
        models,
        settings,
        Machine(cpu_flags=frozenset(), cores=(0, 1), gpus=0, has_gpu_engine=False),
        ray,
        replicas,
        Sources(Downloads({}, folder), folder, folder, None),
        ReplicaLogs(None, folder),
        base=folder,
        times=StartTimes(None),
        deployer=Deployer((sys.executable, "-c", "import sys; sys.stdin.read()")),
    )


async def test_ray_is_started_with_the_first_model(tmp_path: Path) -> None:
    ray, started = FakeRay(), asyncio.Event()
    door = a_door(tmp_path, ray, STOPPED)
    running = asyncio.create_task(door.run(on_ray_started=started.set))
    try:
        for _ in range(100):  # of turns of the loop: all that it does without a model
            await asyncio.sleep(0)
        assert (ray.starts, door.is_healthy) == (0, True)
        door.follow([CHAT])
        assert not door.is_healthy
        async with asyncio.timeout(60):
            await started.wait()
        assert ray.starts == 1
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_ray_is_not_needed_by_models_that_are_stopped(tmp_path: Path) -> None:
    door = a_door(tmp_path, FakeRay(), STOPPED)
    assert door.is_healthy
    assert [each.state for each in door.statuses()] == ["stopped"]
