"""What the door sees of the processes of its models. Ray and the GPU are fakes; the process is this one."""

import os
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.engine.fake_ray import FakeRay

from quarterdeck.engine.deployer import Deployer
from quarterdeck.engine.machine import Machine
from quarterdeck.engine.replica_client import ReplicaClient
from quarterdeck.engine.replica_logs import ReplicaLogs
from quarterdeck.engine.serve_runtime import ServeRuntime
from quarterdeck.engine.sources import Sources
from quarterdeck.model_lifecycle.gpus import Gpu
from quarterdeck.weights.downloads import Downloads

APP = "qd-chat-1"


class RayWithAReplica(FakeRay):
    """Ray Serve whose only application is being deployed in this process."""

    def details(self) -> dict[str, Any]:
        replica = {"actor_name": "replica", "state": "STARTING", "pid": os.getpid()}
        return {"applications": {APP: {"status": "DEPLOYING", "deployments": {"LLM": {"replicas": [replica]}}}}}


def runtime(folder: Path, *gpus: Gpu) -> ServeRuntime:
    made = ServeRuntime(
        RayWithAReplica(),
        Deployer((sys.executable, "-c", "import sys; sys.stdin.read()")),
        Sources(Downloads({}, folder), folder, folder, None),
        ReplicaClient(httpx.AsyncClient(transport=httpx.MockTransport(lambda _: httpx.Response(200)))),
        ReplicaLogs(None, folder),
        base=folder,
        prefix="qd-",
        thread_binding=None,
        read_gpus=lambda: gpus,
    )
    made.machine = Machine(cpu_flags=frozenset(), cores=(0, 1), gpus=len(gpus), has_gpu_engine=bool(gpus))
    return made


@pytest.mark.parametrize(
    ("gpus", "expected"),
    [
        ((), None),
        ((Gpu("NVIDIA L4", 24, 4),), None),  # a driver that does not tell who holds it
        ((Gpu("NVIDIA L4", 24, 4, {1: 20}),), None),
        ((Gpu("NVIDIA L4", 24, 4, {os.getpid(): 12}), Gpu("NVIDIA L4", 24, 4, {os.getpid(): 11, 1: 9})), 23),
    ],
)
async def test_memory_on_gpus_is_that_of_the_models_processes(
    gpus: tuple[Gpu, ...], expected: int | None, tmp_path: Path
) -> None:
    subject = runtime(tmp_path, *gpus)
    await subject.poll()
    seen = subject.observed()[APP]
    assert (seen.state, seen.gpu_memory_bytes) == ("starting", expected)
    assert (seen.memory_bytes or 0) > 1_000_000
