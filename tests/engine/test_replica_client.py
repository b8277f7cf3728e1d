"""Responses of a replica as the door's results and errors."""

import json
from pathlib import Path

import httpx
import pytest

from quarterdeck.engine.adapter_store import Adapter
from quarterdeck.engine.replica_client import ReplicaClient
from quarterdeck.errors import EngineError, EngineUnavailableError

ADAPTER = Adapter("a", "a@1f", Path("/a"))
METRICS = """
vllm:num_requests_running{engine="0",model_name="m"} 2.0
vllm:num_requests_waiting{engine="0",model_name="m"} 1.0
vllm:num_requests_waiting_by_reason{engine="0",model_name="m",reason="capacity"} 1.0
"""


def _client(answer: httpx.Response | Exception) -> ReplicaClient:
    def handle(request: httpx.Request) -> httpx.Response:
        if isinstance(answer, Exception):
            raise answer
        return answer

    return ReplicaClient(httpx.AsyncClient(transport=httpx.MockTransport(handle)))


async def test_running_and_waiting_requests_are_active() -> None:
    assert await _client(httpx.Response(200, text=METRICS)).active_requests("http://r") == 3
    assert await _client(httpx.ConnectError("gone")).active_requests("http://r") == 0


async def test_a_refusal_carries_the_replicas_reason() -> None:
    refusal = httpx.Response(400, json={"error": {"message": "rank 64 is more than 16", "code": 400}})
    with pytest.raises(EngineError, match="rank 64"):
        await _client(refusal).load("http://r", ADAPTER)
    with pytest.raises(EngineError, match="status 500"):
        await _client(httpx.Response(500, text="oops")).unload("http://r", "a")


async def test_a_silent_replica_is_unavailable() -> None:
    with pytest.raises(EngineUnavailableError):
        await _client(httpx.ConnectError("refused")).load("http://r", ADAPTER)


async def test_an_adapter_is_loaded_once_under_the_name_of_its_content() -> None:
    bodies: list[dict[str, object]] = []

    def handle(request: httpx.Request) -> httpx.Response:
        bodies.append(json.loads(request.content))
        return httpx.Response(200)

    await ReplicaClient(httpx.AsyncClient(transport=httpx.MockTransport(handle))).load("http://r", ADAPTER)
    assert bodies == [{"lora_name": "a@1f", "lora_path": "/a"}]


async def test_an_adapter_that_the_replica_has_is_loaded() -> None:
    message = "The lora adapter 'a@1f' has already been loaded. If you want to load the adapter in place, set …"
    await _client(httpx.Response(400, json={"error": {"message": message}})).load("http://r", ADAPTER)


async def test_the_adapters_are_the_models_with_a_parent() -> None:
    models = {"data": [{"id": "m", "parent": None}, {"id": "pirate@1f", "parent": "m"}]}
    assert await _client(httpx.Response(200, json=models)).adapters("http://r") == ["pirate@1f"]


@pytest.mark.parametrize(
    "answer", [httpx.ConnectError("gone"), httpx.Response(200, json={"data": [1]}), httpx.Response(503, text="busy")]
)
async def test_a_replica_that_does_not_list_its_adapters_is_an_error(answer: httpx.Response | Exception) -> None:
    with pytest.raises(EngineUnavailableError):
        await _client(answer).adapters("http://r")
