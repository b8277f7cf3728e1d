"""A client reads no more of an answer than it is bound to, and nothing that is compressed."""

import gzip
from collections.abc import AsyncIterator

import httpx
import pytest

from quarterdeck.worker.bounded_answers import bound_answers


async def read(answer: httpx.Response, most: int = 1000) -> bytes:
    seen: list[str] = []

    def handle(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers["accept-encoding"])
        return answer

    async with httpx.AsyncClient(transport=httpx.MockTransport(handle)) as client:
        bound_answers(client, most)
        found = (await client.get("http://server/")).content
    assert seen == ["identity"]
    return found


async def endless() -> AsyncIterator[bytes]:
    while True:
        yield b"x" * 100


async def test_an_answer_within_the_bound_is_read() -> None:
    assert await read(httpx.Response(200, content=b"x" * 1000)) == b"x" * 1000


async def test_an_endless_answer_is_an_error() -> None:
    with pytest.raises(httpx.RemoteProtocolError, match="more than 1000 bytes"):
        await read(httpx.Response(200, content=endless()))


async def test_a_compressed_answer_is_an_error_before_it_is_read() -> None:
    bomb = gzip.compress(b"\0" * 10_000_000)
    with pytest.raises(httpx.RemoteProtocolError, match="compressed"):
        await read(httpx.Response(200, headers={"content-encoding": "gzip"}, stream=httpx.ByteStream(bomb)), 10**9)
