"""Connections, pipelining and hang-ups, over real sockets: past ASGI and over it."""

import asyncio
import contextlib
import socket

import pytest
from tests.gateway.fakes import FakeStream, never
from tests.gateway.http.connections import REQUEST, Bench

from quarterdeck.inference.call import Reply


async def test_a_connection_is_kept_for_the_next_request(bench: Bench) -> None:
    peer = await bench.connect()
    for _ in range(3):
        await peer.send(REQUEST)
        assert await peer.answer() == (200, {"ok": True})


async def test_pipelined_requests_are_answered_in_order(bench: Bench) -> None:
    peer = await bench.connect()
    await peer.send(REQUEST * 3)
    for _ in range(3):
        assert (await peer.answer())[0] == 200


async def test_a_hang_up_cancels_the_handler(bench: Bench) -> None:
    bench.pipeline.answer = never
    peer = await bench.connect()
    await peer.send(REQUEST)
    await bench.pipeline.was_called.wait()
    peer.writer.close()
    await bench.pipeline.was_cancelled.wait()


async def test_a_reset_cancels_the_handler(bench: Bench) -> None:
    bench.pipeline.answer = never
    peer = await bench.connect()
    await peer.send(REQUEST)
    await bench.pipeline.was_called.wait()
    peer.writer.transport.abort()
    await bench.pipeline.was_cancelled.wait()


async def test_a_client_that_stops_reading_is_cut_off_and_memory_stays_bounded(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    stream = FakeStream([b"x" * 65_536] * 10_000)  # 640 MB, if all of it were buffered
    bench.pipeline.answer = Reply(200, (), stream=stream)
    raw = socket.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    raw.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(raw, ("127.0.0.1", bench.port))
    await loop.sock_sendall(raw, REQUEST)
    await stream.closed.wait()
    assert stream.given < 200
    with contextlib.suppress(ConnectionError):
        while await loop.sock_recv(raw, 1 << 20):
            pass  # what the kernel held
    raw.close()
    assert "without completing" not in caplog.text


async def test_a_hang_up_with_pipelined_requests_cancels_the_one_in_flight(bench: Bench) -> None:
    bench.pipeline.answer = never
    peer = await bench.connect()
    await peer.send(REQUEST * 2)
    await bench.pipeline.was_called.wait()
    peer.writer.close()
    await bench.pipeline.was_cancelled.wait()
