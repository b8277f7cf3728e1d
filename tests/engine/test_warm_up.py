"""A replica's request to itself before it is ready."""

import asyncio
import json
from typing import Any

import pytest

from quarterdeck.engine.warm_up import warm_up


class Engine:
    """An ASGI app that answers with a status."""

    def __init__(self, status: int = 200) -> None:
        self.status = status
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        message = await receive()
        self.asked.append((scope["path"], json.loads(message["body"])))
        await self.gate.wait()
        if self.status == 0:
            raise RuntimeError("the engine is dead")
        await send({"type": "http.response.start", "status": self.status, "headers": []})
        await send({"type": "http.response.body", "body": b"{}"})


async def test_each_kind_of_model_gets_its_own_request() -> None:
    engine = Engine()
    assert await warm_up(engine, "chat", "generate")
    assert await warm_up(engine, "vectors", "embed")
    assert [(path, body["model"]) for path, body in engine.asked] == [
        ("/v1/completions", "chat"),
        ("/v1/embeddings", "vectors"),
    ]


@pytest.mark.parametrize("status", [0, 400, 500])
async def test_a_failure_does_not_keep_the_replica_from_serving(status: int) -> None:
    assert not await warm_up(Engine(status), "chat", "generate")


async def test_a_request_that_hangs_is_given_up() -> None:
    engine = Engine()
    engine.gate.clear()
    assert not await warm_up(engine, "chat", "generate", seconds=0.01)
