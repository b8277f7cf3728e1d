"""An answer of another program is read whole and bounded, or refused. Over real HTTP."""

import asyncio
import gzip
from collections.abc import AsyncIterator

import httpx
import pytest
from tests.net.upstream import Peer, Upstream, response

from quarterdeck.operator.http_answers import MAX_BYTES, AnswerTooLargeError, fetch


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(trust_env=False) as made:
        yield made


def url(upstream: Upstream) -> str:
    return f"http://127.0.0.1:{upstream.origin.port}/x"


async def test_an_answer_without_end_is_cut_off(client: httpx.AsyncClient) -> None:
    head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
    piece = b"10000\r\n" + b" " * 0x10000 + b"\r\n"

    async def answer(peer: Peer) -> None:
        await peer.request()
        await peer.say(head + piece * (MAX_BYTES // 0x10000 + 2))
        await asyncio.Event().wait()

    async with Upstream(answer) as upstream:
        with pytest.raises(AnswerTooLargeError):
            await fetch(client, "GET", url(upstream), seconds=60)


async def test_an_answer_that_trickles_ends_with_its_time(client: httpx.AsyncClient) -> None:
    async def answer(peer: Peer) -> None:
        await peer.request()
        await peer.say(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n")
        while True:
            await peer.say(b" ")
            await asyncio.sleep(0.05)

    async with Upstream(answer) as upstream:
        with pytest.raises(httpx.ReadTimeout, match=r"no whole answer within 0.5 s"):
            await fetch(client, "GET", url(upstream), seconds=0.5)


@pytest.mark.parametrize(
    "body", [b"{", b"[" * 100_000, gzip.compress(b" " * 1_000_000)], ids=["cut", "deep", "compressed"]
)
async def test_what_is_no_json_is_a_value_error(client: httpx.AsyncClient, body: bytes) -> None:
    async def answer(peer: Peer) -> None:
        await peer.request()
        await peer.say(response(body))

    async with Upstream(answer) as upstream:
        found = await fetch(client, "GET", url(upstream), seconds=60)
    with pytest.raises(ValueError):
        found.json()


async def test_compression_that_was_not_asked_for_is_refused(client: httpx.AsyncClient) -> None:
    body = gzip.compress(b" " * 1_000_000)
    head = f"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: {len(body)}\r\n\r\n".encode()

    async def answer(peer: Peer) -> None:
        await peer.request()
        await peer.say(head + body)

    async with Upstream(answer) as upstream:
        with pytest.raises(httpx.DecodingError):
            await fetch(client, "GET", url(upstream), seconds=60)


async def test_a_url_that_is_none_is_an_http_error(client: httpx.AsyncClient) -> None:
    with pytest.raises(httpx.HTTPError):
        await fetch(client, "GET", "http://[::1", seconds=1)
