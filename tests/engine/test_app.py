"""The control port, with a fake Ray."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from tests.engine.fake_ray import FakeRay
from tests.engine.lora import write_adapter

from quarterdeck.engine.app import App
from quarterdeck.engine.door import Door
from quarterdeck.engine.machine import Machine
from quarterdeck.engine.replica_client import ReplicaClient
from quarterdeck.engine.replica_logs import ReplicaLogs
from quarterdeck.engine.sources import Sources
from quarterdeck.model_lifecycle.start_times import StartTimes
from quarterdeck.settings.engine import EngineDoorSettings
from quarterdeck.settings.models import ModelConfig
from quarterdeck.weights.downloads import Downloads
from quarterdeck.weights.pulls import Pulls

MACHINE = Machine(cpu_flags=frozenset(), cores=(0, 1), gpus=0, has_gpu_engine=False)


MODELS = [
    ModelConfig.model_validate({"name": "org/chat", "engine": {"source": "org/chat", "max_adapters": 1}}),
    ModelConfig.model_validate({"name": "elsewhere", "endpoints": [{"url": "http://10.0.0.9:8000"}]}),
]


@pytest.fixture
def door(tmp_path: Path) -> Door:
    settings = EngineDoorSettings("127.0.0.1", None, 0.1, 0.1, (tmp_path,), tmp_path / "copies", None)
    replicas = ReplicaClient(httpx.AsyncClient(transport=httpx.MockTransport(lambda _: httpx.Response(200))))
    return Door(
        MODELS,
        settings,
        MACHINE,
        FakeRay(),
        replicas,
        Sources(Downloads({}, tmp_path), tmp_path, tmp_path, None),
        ReplicaLogs(None, tmp_path),
        base=tmp_path,
        times=StartTimes(None),
    )


@pytest.fixture
async def client(door: Door, tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    pulls = Pulls(Downloads({}, tmp_path))
    transport = httpx.ASGITransport(App(door, pulls), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://door") as client:
        yield client


async def test_models_with_an_engine_are_listed_from_the_first_moment(client: httpx.AsyncClient) -> None:
    (row,) = (await client.get("/endpoints")).json()["endpoints"]
    assert (row["id"], row["state"], row["detail"]) == ("org/chat", "starting", "waiting for Ray")


async def test_the_state_of_each_model_is_listed_beside(client: httpx.AsyncClient, door: Door) -> None:
    (status,) = (await client.get("/endpoints")).json()["models"]
    assert (status["name"], status["state"], status["detail"]) == ("org/chat", "waiting", "waiting for Ray")
    door.follow([ModelConfig.model_validate({**MODELS[0].model_dump(exclude_unset=True), "stopped": True})])
    answer = (await client.get("/endpoints")).json()
    assert (answer["endpoints"], answer["models"][0]["state"]) == ([], "stopped")


async def test_a_model_that_has_not_failed_is_not_tried_again(client: httpx.AsyncClient) -> None:
    assert (await client.post("/models/org%2Fchat/retry")).json() == {"name": "org/chat", "was_failed": False}


async def test_health_follows_ray(client: httpx.AsyncClient, door: Door) -> None:
    assert (await client.get("/healthz")).status_code == 503
    door.is_answering = True
    assert (await client.get("/healthz")).status_code == 200


async def test_prometheus_is_told_where_the_metrics_of_living_nodes_are(client: httpx.AsyncClient, door: Door) -> None:
    assert (await client.get("/prometheus/targets")).json() == []
    door.is_answering = True
    assert (await client.get("/prometheus/targets")).json() == [
        {"targets": ["127.0.0.1:8080"], "labels": {"ray_node": "78c6128772f0"}}
    ]


async def test_an_adapter_is_added_and_removed_by_a_name_with_a_slash(
    client: httpx.AsyncClient, tmp_path: Path
) -> None:
    write_adapter(tmp_path)
    order = {"model": "org/chat", "name": "ft:a/b", "path": str(tmp_path)}
    assert (await client.post("/adapters", json=order)).json() == {"model": "org/chat", "name": "ft:a/b"}
    assert (await client.delete("/adapters/org%2Fchat/ft:a%2Fb")).json()["deleted"] is True
    assert (await client.delete("/adapters/org%2Fchat/ft:a%2Fb")).status_code == 404


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/", 404), ("GET", "/nowhere", 404), ("POST", "/endpoints", 405), ("GET", "/adapters/a/b", 405)],
)
async def test_what_is_not_a_route_is_refused_in_the_envelope(
    client: httpx.AsyncClient, method: str, path: str, status: int
) -> None:
    answer = await client.request(method, path)
    assert answer.status_code == status
    assert answer.json()["error"]["message"]


async def test_a_body_has_a_bound(client: httpx.AsyncClient) -> None:
    assert (await client.post("/adapters", json="x" * 70_000)).status_code == 413


@pytest.mark.parametrize("kind", [None, "text/plain", "application/x-www-form-urlencoded", "text/json", "x"])
async def test_a_body_that_is_not_declared_as_json_is_refused(
    client: httpx.AsyncClient, kind: str | None, tmp_path: Path
) -> None:
    """A web page may send these to another origin without asking."""
    order = {"model": "org/chat", "name": "a", "path": str(tmp_path)}
    headers = {} if kind is None else {"content-type": kind}
    answer = await client.post("/adapters", content=json.dumps(order), headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "unsupported_media_type")
