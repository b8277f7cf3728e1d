"""Bounds of the server itself, over real sockets."""

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.gateway.fakes import USER, FakePipeline, FakeStream, config, never, parts

from quarterdeck.gateway.app import create_app
from quarterdeck.gateway.http import callers, server
from quarterdeck.gateway.http.front import create_server
from quarterdeck.inference.call import Reply
from quarterdeck.net.sockets import listen

HEAD = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {USER}\r\n".encode()
REQUEST = HEAD + b"content-length: 2\r\n\r\n{}"


class Peer:
    """A raw connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        with contextlib.suppress(ConnectionError):
            await self.writer.drain()

    async def answer(self) -> tuple[int, dict[str, Any]]:
        """Status and JSON of one answer with a content-length."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        return int(head.split(b" ")[1]), json.loads(await self.reader.readexactly(length))

    async def code(self) -> tuple[int, str]:
        status, body = await self.answer()
        return status, body["error"]["code"]

    async def is_closed(self) -> bool:
        try:
            return await self.reader.read() == b""
        except ConnectionError:
            return True


class Bench:
    def __init__(self, port: int, pipeline: FakePipeline) -> None:
        self.port, self.pipeline = port, pipeline
        self._peers: list[Peer] = []

    async def connect(self, **options: Any) -> Peer:
        peer = Peer(*await asyncio.open_connection("127.0.0.1", self.port, **options))
        self._peers.append(peer)
        return peer

    async def close(self) -> None:
        for peer in self._peers:
            peer.writer.close()
            with contextlib.suppress(ConnectionError):
                await peer.writer.wait_closed()


@pytest.fixture(params=["before ASGI", "over ASGI"])
async def bench(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    """Both ways of a request to a model: a key in memory goes past ASGI, one that must be looked up does not."""
    monkeypatch.setattr(callers, "SWEEP_SECONDS", 0.01)
    pipeline = FakePipeline(config(client_write_timeout_seconds=0.2))
    listener = listen("127.0.0.1", 0)
    made_of = parts(pipeline)
    if request.param == "before ASGI":
        await made_of.authenticator.authenticate(f"Bearer {USER}".encode())
    else:
        monkeypatch.setattr(made_of.authenticator, "known", lambda authorization: None)
    subject = create_server(create_app(made_of), "127.0.0.1", 0)
    task = asyncio.create_task(subject.serve([listener]))
    made = Bench(listener.getsockname()[1], pipeline)
    yield made
    await made.close()
    subject.should_exit = True
    await task
    listener.close()


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


@pytest.mark.parametrize(
    "head",
    [
        b"GET /healthz HTTP/1.1\r\nhost: x\r\nx-a: " + b"a" * 70_000 + b"\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nhost: x\r\n" + b"x-a: bbbbbbbb\r\n" * 10_000 + b"\r\n",
        b"GET /healthz?" + b"q" * 70_000 + b" HTTP/1.1\r\nhost: x\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nhost: x\r\nx-a: " + b"a" * 2_000_000,  # and no end
    ],
    ids=["one header", "many headers", "the path", "without an end"],
)
async def test_a_head_that_is_too_large_is_a_431_and_the_end(head: bytes, bench: Bench) -> None:
    peer = await bench.connect()
    await peer.send(head)
    assert await peer.code() == (431, "request_headers_too_large")
    assert await peer.is_closed()


@pytest.mark.parametrize(
    "data",
    [
        b"nonsense\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # TLS
        b"GET /healthz HTTP/1.1\r\nhost x\r\n\r\n",
        HEAD + b"content-length: -1\r\n\r\n",
        HEAD + b"content-length: 2\r\ncontent-length: 3\r\n\r\n{}",
        HEAD + b"content-length: 2\r\ntransfer-encoding: chunked\r\n\r\n{}",
        HEAD + b"transfer-encoding: chunked\r\n\r\nnot a size\r\n",
    ],
)
async def test_what_is_no_http_is_a_400_envelope_or_the_end(data: bytes, bench: Bench) -> None:
    peer = await bench.connect()
    await peer.send(data)
    with contextlib.suppress(asyncio.IncompleteReadError):  # its request had begun: the connection is dropped
        assert await peer.code() == (400, "invalid_http")
    assert await peer.is_closed()
    assert bench.pipeline.calls == []


async def test_a_head_that_does_not_come_is_a_408(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "HEAD_SECONDS", 0.5)  # the first line has to come within it
    peer = await bench.connect()
    await peer.send(b"GET /healthz HTTP/1.1\r\n")
    assert await peer.code() == (408, "request_timeout")
    assert await peer.is_closed()


async def test_a_connection_that_says_nothing_is_closed(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "HEAD_SECONDS", 0.05)
    assert await (await bench.connect()).is_closed()


async def test_nothing_is_written_into_an_answer_under_way(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "HEAD_SECONDS", 0.05)
    stream = FakeStream([b"data: 1\n\n"], hangs=True)
    bench.pipeline.answer = Reply(200, (), stream=stream)
    peer = await bench.connect()
    await peer.send(REQUEST)
    await peer.reader.readuntil(b"data: 1\n\n")
    await peer.send(b"nonsense\r\n\r\n")
    await stream.closed.wait()
    with contextlib.suppress(ConnectionError):
        assert b"error" not in await peer.reader.read()


async def test_a_caller_who_hangs_up_cancels_what_works_for_it(bench: Bench) -> None:
    bench.pipeline.answer = never
    peer = await bench.connect()
    await peer.send(REQUEST)
    await bench.pipeline.was_called.wait()
    peer.writer.close()
    await bench.pipeline.was_cancelled.wait()


async def test_a_caller_who_resets_cancels_what_works_for_it(bench: Bench) -> None:
    bench.pipeline.answer = never
    peer = await bench.connect()
    await peer.send(REQUEST)
    await bench.pipeline.was_called.wait()
    peer.writer.transport.abort()
    await bench.pipeline.was_cancelled.wait()


async def test_a_reader_that_stopped_is_waited_for_with_bounded_memory_and_dropped_then(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    stream = FakeStream([b"x" * 65_536] * 10_000)  # 640 MB, if somebody took it
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


async def test_a_pipelining_caller_who_hangs_up_cancels_the_request_under_way(bench: Bench) -> None:
    bench.pipeline.answer = never
    peer = await bench.connect()
    await peer.send(REQUEST * 2)
    await bench.pipeline.was_called.wait()
    peer.writer.close()
    await bench.pipeline.was_cancelled.wait()


async def test_expect_100_continue_is_answered_before_the_body(bench: Bench) -> None:
    peer = await bench.connect()
    await peer.send(HEAD + b"expect: 100-continue\r\ncontent-length: 2\r\n\r\n")
    assert (await peer.reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100")
    await peer.send(b"{}")
    assert (await peer.answer())[0] == 200


async def test_a_head_request_has_no_body(bench: Bench) -> None:
    peer = await bench.connect()
    await peer.send(b"HEAD /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
    answer = await peer.reader.read()
    assert answer.startswith(b"HTTP/1.1 200")
    assert answer.endswith(b"\r\n\r\n")


async def test_a_websocket_is_no_way_in(bench: Bench) -> None:
    peer = await bench.connect()
    await peer.send(
        b"GET /v1/models HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
        b"sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-version: 13\r\n\r\n"
    )
    assert (await peer.answer())[0] == 401
