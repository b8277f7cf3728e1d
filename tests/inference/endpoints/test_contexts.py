"""The contexts of models are read from their endpoints."""

import pytest
from tests.inference.making import an_endpoint, as_json
from tests.net.upstream import Upstream, answering, response

from quarterdeck.inference.endpoints.contexts import ContextReader, context_of
from quarterdeck.inference.endpoints.endpoint import Endpoint
from quarterdeck.net.http_client import HttpClient


def cards(**contexts: int | None) -> bytes:
    return response(as_json({"data": [{"id": name, "max_model_len": each} for name, each in contexts.items()]}))


async def test_it_is_asked_with_the_endpoints_key_and_again_after_a_while(client: HttpClient) -> None:
    async with Upstream(answering(cards(m=2048), cards(m=4096))) as engine:
        endpoint = an_endpoint(url=engine.url, api_key="sk-up")
        reader = ContextReader(lambda: [endpoint], client)
        for now, context in ((0.0, 2048), (59.0, 2048), (61.0, 4096)):
            await reader.read_due(now)
            assert endpoint.context == context
        assert engine.requests[0].head.startswith(b"GET /v1/models HTTP/1.1\r\n")
        assert b"\r\nauthorization: Bearer sk-up\r\n" in engine.requests[0].head
        assert len(engine.requests) == 2


@pytest.mark.parametrize("said", [response(b"", status=503), response(b"[]"), response(b"{"), cards(m=None), cards()])
async def test_what_is_not_said_is_asked_again_and_what_is_known_is_kept(client: HttpClient, said: bytes) -> None:
    async with Upstream(answering(said, cards(m=8), said)) as engine:
        endpoint = an_endpoint(url=engine.url)
        reader = ContextReader(lambda: [endpoint], client)
        await reader.read_due(0.0)
        assert endpoint.context is None
        await reader.read_due(4.0)
        assert len(engine.requests) == 1
        await reader.read_due(5.0)
        await reader.read_due(70.0)
        assert endpoint.context == 8
        assert len(engine.requests) == 3


async def test_only_ready_vllms_are_asked(client: HttpClient) -> None:
    async with Upstream(answering(*[cards(m=8)] * 9)) as engine:
        endpoints = [
            an_endpoint("a", url=engine.url, kind="openai"),
            an_endpoint("b", url=engine.url, state="starting"),
            an_endpoint("c", url=engine.url),
        ]
        dead = an_endpoint("d", url="http://127.0.0.1:1")
        await ContextReader(lambda: [*endpoints, dead], client).read_due(0.0)
        assert [each.context for each in (*endpoints, dead)] == [None, None, 8, None]


@pytest.mark.parametrize(
    ("said", "endpoint", "context"),
    [
        ([("m", 8), ("n", 16)], an_endpoint(), 8),
        ([("served", 8), ("m", 16)], an_endpoint(upstream_model="served"), 8),
        ([("other", 8), ("n", 16), ("a", None)], an_endpoint(), 16),
        ([("m", 0), ("n", -1)], an_endpoint(), None),
        ([], an_endpoint(), None),
    ],
)
def test_the_card_of_the_model_counts(
    said: list[tuple[str, int | None]], endpoint: Endpoint, context: int | None
) -> None:
    assert context_of(said, endpoint) == context
