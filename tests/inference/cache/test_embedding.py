"""Texts are embedded on an endpoint of the platform."""

from typing import Any

import msgspec
import pytest
from tests.inference.making import an_endpoint

from quarterdeck.errors import EngineError, EngineUnavailableError
from quarterdeck.inference.cache.embedding import Embedder
from quarterdeck.inference.endpoints.endpoint import Endpoint
from quarterdeck.inference.engine.client import EngineAnswer
from quarterdeck.model_lifecycle.status import ModelStatus


class Engines:
    """Answers `body`, and records the requests."""

    def __init__(self, body: bytes) -> None:
        self.body = body
        self.asked: list[tuple[str, str, dict[str, Any]]] = []

    async def open(self, endpoint: Endpoint, path: str, body: bytes, *_: Any, **__: Any) -> EngineAnswer:
        self.asked.append((endpoint.id, path, msgspec.json.decode(body)))
        return EngineAnswer(b"application/json", self.body)


class Some:
    def __init__(self, *endpoints: Endpoint) -> None:
        self.endpoints = endpoints

    def all(self) -> tuple[Endpoint, ...]:
        return self.endpoints

    def status(self, name: str) -> ModelStatus | None:
        return None

    def unavailable(self, name: str) -> str:
        return ""

    def serving(self, name: str) -> tuple[Endpoint, ...]:
        return tuple(found for found in self.endpoints if found.spec.state == "ready" and found.spec.serves(name))


GOOD = b'{"data": [{"index": 1, "embedding": [3, 4]}, {"index": 0, "embedding": [1, 2.5]}], "model": "minilm"}'


def embedder(body: bytes, *endpoints: Endpoint) -> tuple[Embedder, Engines]:
    engines: Any = Engines(body)
    found: Any = Some(*endpoints)
    return Embedder(found, engines), engines


async def test_an_endpoint_that_is_ready_is_asked_under_its_own_name_for_the_model() -> None:
    idle = an_endpoint("idle", model="minilm", upstream_model="all-minilm")
    other = an_endpoint("other", model="chat")
    starting = an_endpoint("starting", model="minilm", state="starting")
    subject, engines = embedder(GOOD, idle, other, starting)
    assert await subject("minilm", ["a", "b"]) == [[1, 2.5], [3, 4]]
    body = {"model": "all-minilm", "input": ["a", "b"], "encoding_format": "float"}
    assert engines.asked == [("idle", "/v1/embeddings", body)]


async def test_nobody_there_is_an_error() -> None:
    with pytest.raises(EngineUnavailableError):
        await embedder(GOOD, an_endpoint(model="chat"))[0]("minilm", ["a"])


@pytest.mark.parametrize("body", [b"", b"[]", b'{"data": 1}', b'{"data": [{"embedding": "AAAA"}]}'])
async def test_an_answer_without_vectors_is_an_error(body: bytes) -> None:
    with pytest.raises(EngineError):
        await embedder(body, an_endpoint(model="minilm"))[0]("minilm", ["a"])
