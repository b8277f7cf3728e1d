"""What clients make the gateway hold is bounded and given back: broken bodies, answers that nobody reads."""

import asyncio
import contextlib
import gc
import socket
import weakref
from collections.abc import AsyncIterator, Callable, Iterator

import pytest
from tests.gateway.http.connections import HEAD, REQUEST, Bench, Peer, serving
from tests.net.upstream import until

from quarterdeck.gateway.http.front import FrontProtocol
from quarterdeck.gateway.http.registry import Route
from quarterdeck.gateway.http.request_head import RequestHead
from quarterdeck.inference.call import Head, Reply

MIB = 1024 * 1024
BROKEN = {
    "a model": HEAD + b"content-length: %d\r\n\r\n" % (4 * MIB),
    "a model, chunked": HEAD + b"transfer-encoding: chunked\r\n\r\n%x\r\n" % (4 * MIB),
    "an upload": HEAD.replace(b"/v1/chat/completions", b"/v1/files") + b"content-length: %d\r\n\r\n" % (4 * MIB),
    "the admin API": HEAD.replace(b"/v1/chat/completions", b"/admin/keys") + b"content-length: %d\r\n\r\n" % (MIB + 1),
}


async def upload(head: RequestHead, body: AsyncIterator[bytes]) -> Reply:
    pieces = [piece async for piece in body]
    return Reply(200, (), b"%d" % len(b"".join(pieces)))


@contextlib.contextmanager
def without_collection() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@pytest.fixture
def protocols(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Returns how many connections' protocols exist."""
    made: weakref.WeakSet[FrontProtocol] = weakref.WeakSet()
    original = FrontProtocol.connection_made

    def connection_made(self: FrontProtocol, transport: asyncio.Transport) -> None:
        made.add(self)
        original(self, transport)

    monkeypatch.setattr(FrontProtocol, "connection_made", connection_made)
    return lambda: len(made)


@pytest.mark.parametrize("head", BROKEN.values(), ids=BROKEN.keys())
async def test_a_body_that_breaks_off_is_freed_without_a_garbage_collection(
    way: str, head: bytes, protocols: Callable[[], int]
) -> None:
    async with serving(way, [Route.streamed("/v1/files", upload)]) as bench:
        with without_collection():
            for _ in range(5):
                peer = await bench.connect()
                await peer.send(head + b" " * MIB)
                await until(lambda: len(bench.parts.requests_in_flight) == 1)
                peer.writer.transport.abort()
                await until(lambda: len(bench.parts.requests_in_flight) == 0)
            del peer
            bench._peers.clear()
            await until(lambda: protocols() == 0)
        assert bench.parts.requests_in_flight.held == 0 and bench.parts.requests_in_flight.admitted == 0


@pytest.mark.parametrize("request_", [REQUEST, HEAD.replace(b"POST /v1/chat/completions", b"GET /v1/models") + b"\r\n"])
async def test_a_connection_that_ends_is_freed_without_a_garbage_collection(
    way: str, request_: bytes, protocols: Callable[[], int]
) -> None:
    async with serving(way) as bench:
        with without_collection():
            for _ in range(5):
                peer = await bench.connect()
                await peer.send(request_)
                await peer.answer()
                peer.writer.close()
            del peer
            bench._peers.clear()
            await until(lambda: protocols() == 0)


async def test_a_whole_answer_ends_when_its_client_has_taken_it(bench: Bench) -> None:
    """And not when it is written: until then it holds memory, so it holds its place and its key's slot."""
    ended = asyncio.Event()
    body = b" " * (16 * MIB)

    async def answer(head: Head, _: bytes) -> Reply:
        return Reply(200, ((b"content-type", b"application/json"),), body, on_end=ended.set)

    bench.configure(client_write_timeout_seconds=60)
    bench.pipeline.answer = answer
    peer = await _unread(bench)
    await until(lambda: bench.parts.requests_in_flight.held >= len(body))
    await asyncio.sleep(0.05)
    assert not ended.is_set() and len(bench.parts.requests_in_flight) == 1
    assert (await peer.reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
    assert len(await peer.reader.readexactly(len(body))) == len(body)
    await until(ended.is_set)
    await until(lambda: len(bench.parts.requests_in_flight) == 0)
    assert bench.parts.requests_in_flight.held == 0


@pytest.mark.parametrize("end", ["hang-up", "time-out"])
async def test_a_whole_answer_that_is_not_taken_ends_with_its_connection(bench: Bench, end: str) -> None:
    ended = asyncio.Event()

    async def answer(head: Head, _: bytes) -> Reply:
        return Reply(200, (), b" " * (16 * MIB), on_end=ended.set)

    bench.configure(client_write_timeout_seconds=60 if end == "hang-up" else 0.2)
    bench.pipeline.answer = answer
    peer = await _unread(bench)
    await until(lambda: bench.parts.requests_in_flight.held > 0)
    if end == "hang-up":
        peer.writer.transport.abort()
    await until(ended.is_set, seconds=5)
    await until(lambda: len(bench.parts.requests_in_flight) == 0)
    assert bench.parts.requests_in_flight.held == 0


async def _unread(bench: Bench) -> Peer:
    """A request on a connection with small buffers, whose answer is not read."""
    own = socket.socket()
    own.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    own.connect(("127.0.0.1", bench.port))
    own.setblocking(False)
    peer = await bench.connect(sock=own, limit=4096)
    await peer.send(REQUEST)
    return peer
