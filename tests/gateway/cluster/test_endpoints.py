"""The endpoints of a cluster follow its slices and its index of engines, and stay while the API server is away."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.inference.making import as_json
from tests.kube.api_server import ApiServer
from tests.net.upstream import Upstream, response, until

from quarterdeck.gateway.cluster.endpoints import ClusterEndpoints
from quarterdeck.inference.endpoints.registry import EndpointRegistry
from quarterdeck.kube.api import KubeApi
from quarterdeck.kube.compiled import EngineEntry, EngineIndex
from quarterdeck.net.http_client import HttpClient
from quarterdeck.settings.live import Live

PATH = "/apis/discovery.k8s.io/v1/namespaces/ns/endpointslices"


def a_slice(*pods: str, name: str = "s", port: int = 8000, role: str = "engine", **conditions: bool) -> dict[str, Any]:
    endpoints = [
        {
            "addresses": ["127.0.0.1"],
            "conditions": {"ready": True, **conditions},
            "targetRef": {"name": each, "uid": each},
        }
        for each in pods
    ]
    labels = {
        "quarterdeck.dev/model": "chat",
        "quarterdeck.dev/role": role,
        "kubernetes.io/service-name": "model-chat-replicas" if role == "replica" else "model-chat",
    }
    return {
        "metadata": {"name": name, "labels": labels},
        "addressType": "IPv4",
        "endpoints": endpoints,
        "ports": [{"name": "http", "port": port}],
    }


def index(**changes: Any) -> EngineIndex:
    return EngineIndex(engines={"chat": EngineEntry(**({"object": "chat", "model": "chat"} | changes))})


class Following:
    def __init__(self, server: ApiServer, folder: Path) -> None:
        self.server, self.client = server, HttpClient()
        self.api = KubeApi(server.access())
        self.engines = Live(index())
        self.source = ClusterEndpoints(self.api, self.engines, self.client, saved=folder / "state" / "endpoints.json")
        self.registry = EndpointRegistry([self.source])
        self.task = asyncio.get_running_loop().create_task(self.registry.run())

    @property
    def states(self) -> dict[str, str]:
        return {each.id: each.spec.state for each in self.source.all()}

    async def has(self, **states: str) -> None:
        await until(lambda: self.states == {name.replace("_", "/"): state for name, state in states.items()})

    async def stop(self) -> None:
        self.task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self.task
        await self.api.close()
        await self.client.close()


@pytest.fixture
async def server() -> AsyncIterator[ApiServer]:
    async with ApiServer() as made:
        yield made


@pytest.fixture
async def following(server: ApiServer, tmp_path: Path) -> AsyncIterator[Following]:
    made = Following(server, tmp_path)
    yield made
    await made.stop()


async def test_endpoints_come_and_go_with_their_pods(server: ApiServer, following: Following) -> None:
    await server.put(PATH, a_slice("p1"))
    await following.has(chat_p1="ready")
    (endpoint,) = following.registry.serving("chat")
    endpoint.load.begin(10)
    await server.put(PATH, a_slice("p1", "p2"))
    await following.has(chat_p1="ready", chat_p2="ready")
    assert following.registry.serving("chat")[0] is endpoint, "it keeps its load and its breaker"
    await server.put(PATH, a_slice("p1", terminating=True, ready=False, serving=True))
    await following.has(chat_p1="draining")
    assert following.registry.serving("chat") == ()


async def test_a_model_without_pods_is_listed_and_a_failed_one_is_unavailable(following: Following) -> None:
    await until(lambda: following.source.waiting is None)
    following.engines.replace(index(state="Zero"))
    assert following.states == {"chat": "idle"}
    assert following.registry.unavailable("chat") == ""
    following.engines.replace(index(state="Failed", detail="Its image can't be pulled."))
    assert following.registry.unavailable("chat") == "Its image can't be pulled."


async def test_until_slices_were_listed_it_waits(server: ApiServer, tmp_path: Path) -> None:
    await server.stop()
    following = Following(server, tmp_path)
    await until(lambda: "does not answer" in (following.source.waiting or ""))
    await server.start()
    await until(lambda: following.source.waiting is None)
    await following.stop()


async def test_an_api_server_that_goes_away_takes_nothing_with_it(server: ApiServer, following: Following) -> None:
    await server.put(PATH, a_slice("p1"))
    await following.has(chat_p1="ready")
    await server.stop()
    await until(lambda: following.source.stale is not None)
    assert len(following.registry.serving("chat")) == 1
    await server.start()
    await server.put(PATH, a_slice("p2"))
    await following.has(chat_p2="ready")


async def test_after_a_restart_without_an_api_server_the_last_endpoints_are_there(
    server: ApiServer, tmp_path: Path
) -> None:
    first = Following(server, tmp_path)
    await server.put(PATH, a_slice("p1"))
    await first.has(chat_p1="ready")
    await until((tmp_path / "state" / "endpoints.json").exists)
    await first.stop()
    await server.stop()
    second = Following(server, tmp_path)
    await second.has(chat_p1="ready")
    assert second.source.waiting is None
    await second.stop()


async def test_doors_are_polled_while_they_are_listed(server: ApiServer, following: Following) -> None:
    rows = [{"id": "chat#1", "model": "chat", "state": "ready", "url": "http://127.0.0.1:30001"}]
    listing = response(as_json({"endpoints": rows}))

    async def answer(peer: Any) -> None:
        while True:
            await peer.request()
            await peer.say(listing)

    async with Upstream(answer) as door:
        await server.put(PATH, a_slice("worker", name="r", role="replica"))
        await server.put(PATH, a_slice("head", role="door", port=door.origin.port))
        await until(lambda: len(following.registry.serving("chat")) == 1)
        assert following.states == {"chat/chat#1": "ready"}
        await server.delete(PATH, "s")
        await until(lambda: following.registry.serving("chat") == ())


async def test_a_door_can_not_send_requests_to_an_address_that_is_no_pod_of_its_model(
    server: ApiServer, following: Following, caplog: pytest.LogCaptureFixture
) -> None:
    urls = ["http://127.0.0.1:30001", "http://169.254.169.254", "http://10.0.0.9:30001", "http://127.0.0.1:30001/x"]
    rows = [{"id": str(at), "model": "chat", "state": "ready", "url": url} for at, url in enumerate(urls)]
    listing = response(as_json({"endpoints": rows}))

    async def answer(peer: Any) -> None:
        while True:
            await peer.request()
            await peer.say(listing)

    async with Upstream(answer) as door:
        await server.put(PATH, a_slice("worker", name="r", role="replica"))
        await server.put(PATH, a_slice("head", role="door", port=door.origin.port))
        await following.has(chat_0="ready")
    assert len([each for each in caplog.messages if "no pod of its model" in each]) == 1


async def test_the_selector_asks_for_our_slices_only(server: ApiServer, following: Following) -> None:
    await until(lambda: bool(server.requests))
    assert server.requests[0][1]["labelSelector"] == "quarterdeck.dev/role in (engine,door,replica)"
