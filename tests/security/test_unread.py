"""Clients that send without reading: what waits for them is bounded and timed, on every route and without a key."""

import asyncio
import contextlib
import socket

import pytest
from tests.gateway.http.connections import HEAD, REQUEST, serving
from tests.net.upstream import until

from quarterdeck.errors import BadRequestError
from quarterdeck.gateway.http.connections import Connections
from quarterdeck.gateway.http.front import MAX_WAITING
from quarterdeck.telemetry.metrics import Metrics

KIB = 1024
KEYLESS = {path: f"GET {path} HTTP/1.1\r\n\r\n".encode() for path in ("/healthz", "/metrics", "/v1/models", "/nothing")}


async def send_unread(port: int, data: bytes) -> socket.socket:
    """A connection that takes as little as possible, with what it could send of `data`."""
    raw = socket.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    raw.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(raw, ("127.0.0.1", port))
    with contextlib.suppress(OSError):
        await loop.sock_sendall(raw, data)
    return raw


@pytest.mark.parametrize("request_", [*KEYLESS.values(), REQUEST], ids=[*KEYLESS, "a model"])
async def test_of_thousands_of_pipelined_requests_the_first_are_answered_and_the_connection_closed(
    way: str, request_: bytes
) -> None:
    async with serving(way) as bench:
        peer = await bench.connect()
        await peer.send(request_ * (200 * KIB // len(request_)))
        answers = (await peer.reader.read()).count(b"HTTP/1.1 ")
        assert MAX_WAITING <= answers <= MAX_WAITING + 1
        other = await bench.connect()
        await other.send(REQUEST)
        assert (await other.answer())[0] == 200


async def test_error_answers_that_are_not_read_are_cut_off(way: str, caplog: pytest.LogCaptureFixture) -> None:
    connections = Connections(100)
    async with serving(way, connections=connections) as bench:
        bench.pipeline.answer = BadRequestError("x" * 8 * KIB * KIB)
        raw = await send_unread(bench.port, REQUEST * 4)
        await until(lambda: not connections and not bench.parts.requests_in_flight)
        raw.close()
    assert "Exception in ASGI" not in caplog.text


async def test_public_answers_that_are_not_read_are_cut_off(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Metrics, "scrape", lambda self: b"x" * 8 * KIB * KIB)
    connections = Connections(100)
    async with serving(way, connections=connections) as bench:
        raw = await send_unread(bench.port, KEYLESS["/metrics"] * 4)
        await until(lambda: not connections)
        raw.close()


async def test_the_rest_of_a_body_that_was_answered_early_is_not_awaited_for_ever(way: str) -> None:
    connections = Connections(100)
    async with serving(way, connections=connections, head_seconds=0.2) as bench:
        peer = await bench.connect()
        await peer.send(b"POST /admin/keys HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\n{")
        assert (await peer.answer())[0] == 401
        await peer.send(b" ")
        await until(lambda: not connections)


async def test_a_body_takes_its_own_time_while_its_request_is_served(way: str) -> None:
    async with serving(way, head_seconds=0.05) as bench:
        peer = await bench.connect()
        await peer.send(HEAD + b"content-length: 2\r\n\r\n{")
        await asyncio.sleep(0.2)
        await peer.send(b"}")
        assert (await peer.answer())[0] == 200
