"""HTTP/1.0, and connections that are not kept."""

import asyncio

import pytest
from tests.gateway.fakes import FakeStream
from tests.gateway.http.connections import HEAD, REQUEST, Bench, Peer, serving

from quarterdeck.inference.call import Reply

OLD = REQUEST.replace(b"HTTP/1.1", b"HTTP/1.0")
STREAM = Reply(200, ((b"content-type", b"text/event-stream"),))


async def parts(peer: Peer) -> tuple[bytes, bytes]:
    head, _, body = (await peer.reader.read()).partition(b"\r\n\r\n")
    return head.lower(), body


async def test_a_stream_over_http_1_0_has_no_chunks_and_ends_with_the_connection(bench: Bench) -> None:
    bench.pipeline.answer = Reply(200, STREAM.headers, stream=FakeStream([b"data: 1\n\n", b"data: [DONE]\n\n"]))
    peer = await bench.connect()
    await peer.send(OLD)
    head, body = await parts(peer)
    assert head.startswith(b"http/1.1 200")
    assert b"transfer-encoding" not in head
    assert b"connection: close" in head
    assert body == b"data: 1\n\ndata: [DONE]\n\n"


async def test_a_whole_answer_over_http_1_0_has_its_length(bench: Bench) -> None:
    peer = await bench.connect()
    await peer.send(OLD)
    head, body = await parts(peer)
    assert b"content-length: 11" in head
    assert body == b'{"ok":true}'


async def test_fastapis_answers_are_for_http_1_0_too(bench: Bench) -> None:
    peer = await bench.connect()
    await peer.send(b"GET /healthz HTTP/1.0\r\n\r\n")
    head, body = await parts(peer)
    assert b"content-length: 15" in head
    assert body == b'{"status":"ok"}'


async def test_an_offer_to_keep_the_connection_is_declined_over_http_1_0(bench: Bench) -> None:
    peer = await bench.connect()
    await peer.send(OLD.replace(b"host: x", b"connection: keep-alive"))
    head, _ = await parts(peer)
    assert b"connection: close" in head


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/healthz"])
async def test_without_keep_alive_each_answer_closes_its_connection(way: str, path: str) -> None:
    async with serving(way, keep_alive_seconds=0) as bench:
        peer = await bench.connect()
        await peer.send(REQUEST if path != "/healthz" else b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
        head, _ = await parts(peer)
        assert head.startswith(b"http/1.1 200")
        assert head.count(b"connection: close") == 1


@pytest.mark.parametrize("request_", [REQUEST, b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n"], ids=["model", "fastapi"])
async def test_an_idle_connection_is_closed_after_the_time_that_is_set(way: str, request_: bytes) -> None:
    async with serving(way, keep_alive_seconds=0.05) as bench:
        peer = await bench.connect()
        await peer.send(request_)
        await peer.answer()
        async with asyncio.timeout(10):
            assert await peer.is_closed()


async def test_a_client_that_closes_is_told_so(bench: Bench) -> None:
    peer = await bench.connect()
    await peer.send(HEAD + b"connection: close\r\ncontent-length: 2\r\n\r\n{}")
    head, _ = await parts(peer)
    assert head.count(b"connection: close") == 1
