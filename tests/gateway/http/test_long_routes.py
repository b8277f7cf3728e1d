"""A route that streams for a minute and one that takes a large upload, by the registry: past ASGI and over it.

The minute is 600 events at a tenth of a second; here an event takes a millisecond.
"""

import asyncio
import contextlib
import hashlib
import json
import socket
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from tests.gateway.fakes import USER
from tests.gateway.http.connections import Bench, Peer, serving

from quarterdeck.errors import APIError, BadRequestError, EngineError
from quarterdeck.gateway.http.body_stream import BodyStream
from quarterdeck.gateway.http.registry import Route
from quarterdeck.gateway.http.request_head import RequestHead
from quarterdeck.inference.call import Reply, Sink
from quarterdeck.protocol import sse

KIB, MIB = 1024, 1024 * 1024
KEY = f"host: x\r\nauthorization: Bearer {USER}\r\n".encode()
TICKS = b"POST /v1/ticks HTTP/1.1\r\n" + KEY + b"content-length: 2\r\n\r\n{}"
UPLOAD = b"POST /v1/uploads HTTP/1.1\r\n" + KEY
MOST_UNREAD = 64 * KIB + 256 * KIB
"""Reading pauses above 64 KiB, after a read of at most 256 KiB."""


class Ticks:
    """Events, one each `seconds`; then the end, or an error."""

    def __init__(self, count: int, seconds: float, *, size: int = 0, error: APIError | None = None) -> None:
        self.count, self.seconds = count, seconds
        self.event = b"data: " + b"x" * size + b"%d\n\n"
        self.error = error
        self.headers = sse.HEADERS
        self.sent = 0
        self.closed = asyncio.Event()

    async def answer(self, head: RequestHead, body: bytes) -> Reply:
        return Reply(200, self.headers, stream=self)

    async def pump(self, sink: Sink) -> None:
        for number in range(self.count):
            await asyncio.sleep(self.seconds)
            self.sent += 1
            if not sink.put(self.event % number):
                await sink.room()
        if self.error is not None:
            raise self.error

    async def aclose(self) -> None:
        self.closed.set()


@pytest.fixture
def ticks() -> Ticks:
    return Ticks(600, 0.001)


@pytest.fixture
async def ticking(way: str, ticks: Ticks) -> AsyncIterator[Bench]:
    async with serving(way, [Route.buffered("/v1/ticks", ticks.answer)]) as bench:
        yield bench


async def chunks(peer: Peer) -> list[bytes]:
    """The rest of a streamed answer. Raises IncompleteReadError where it does not end."""
    found = []
    while size := int(await peer.reader.readline(), 16):
        found.append(await peer.reader.readexactly(size))
        await peer.reader.readexactly(2)
    await peer.reader.readexactly(2)
    return found


async def head_of(peer: Peer) -> bytes:
    return await peer.reader.readuntil(b"\r\n\r\n")


async def test_a_stream_of_a_minute_is_counted_while_it_lasts_and_comes_whole(ticking: Bench, ticks: Ticks) -> None:
    peer = await ticking.connect()
    await peer.send(TICKS)
    head = await head_of(peer)
    assert head.startswith(b"HTTP/1.1 200")
    assert b"x-request-id: req_" in head
    assert len(ticking.parts.requests_in_flight) == 1
    assert b"".join(await chunks(peer)) == b"".join(b"data: %d\n\n" % number for number in range(600))
    assert ticks.closed.is_set()
    await ticking.parts.requests_in_flight.empty()
    assert ticking.parts.metrics.http_requests.values == {("/v1/ticks", "200"): 1}


async def test_a_drain_waits_for_a_stream_and_admits_nothing_new(ticking: Bench, ticks: Ticks) -> None:
    peer, late = await ticking.connect(), await ticking.connect()
    await peer.send(TICKS)
    await head_of(peer)
    draining = asyncio.create_task(ticking.parts.requests_in_flight.drain(60, asyncio.Event()))
    await asyncio.sleep(0)
    await late.send(TICKS)
    assert await late.code() == (503, "shutting_down")
    assert await late.is_closed()
    assert not draining.done()
    assert b"".join(await chunks(peer)).endswith(b"data: 599\n\n")
    await draining
    assert ticks.sent == 600


@pytest.mark.parametrize("hurries", [False, True])
async def test_a_stream_that_outlasts_the_drain_ends_with_an_error_event(
    hurries: bool, ticking: Bench, ticks: Ticks
) -> None:
    peer = await ticking.connect()
    await peer.send(TICKS)
    await head_of(peer)
    hurry = asyncio.Event()
    if hurries:
        hurry.set()
    await ticking.parts.requests_in_flight.drain(60 if hurries else 0.05, hurry)
    last = (await chunks(peer))[-1]
    assert json.loads(last.removeprefix(b"data: "))["error"]["code"] == "shutting_down"
    assert ticks.closed.is_set()
    assert ticks.sent < 600


async def test_a_hang_up_stops_a_stream(ticking: Bench, ticks: Ticks) -> None:
    peer = await ticking.connect()
    await peer.send(TICKS)
    await head_of(peer)
    peer.writer.close()
    await ticks.closed.wait()
    await ticking.parts.requests_in_flight.empty()
    assert ticks.sent < 600


async def test_a_client_that_does_not_read_a_stream_is_cut_off(way: str) -> None:
    ticks = Ticks(10_000, 0, size=64 * KIB)  # 640 MB, if all of it were buffered
    async with serving(way, [Route.buffered("/v1/ticks", ticks.answer)]) as bench:
        loop = asyncio.get_running_loop()
        with socket.socket() as raw:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            raw.setblocking(False)
            await loop.sock_connect(raw, ("127.0.0.1", bench.port))
            await loop.sock_sendall(raw, TICKS)
            await ticks.closed.wait()
            assert ticks.sent < 200
            with contextlib.suppress(ConnectionError):
                while await loop.sock_recv(raw, MIB):
                    pass  # what the kernel held; then the connection is closed
        await bench.parts.requests_in_flight.empty()


async def test_an_error_in_a_stream_is_its_last_event(way: str) -> None:
    ticks = Ticks(3, 0, error=EngineError("The engine failed.", code="engine_error"))
    async with serving(way, [Route.buffered("/v1/ticks", ticks.answer)]) as bench:
        peer = await bench.connect()
        await peer.send(TICKS)
        await head_of(peer)
        last = b"".join(await chunks(peer)).removeprefix(b"data: 0\n\ndata: 1\n\ndata: 2\n\n")
        assert json.loads(last.removeprefix(b"data: "))["error"]["code"] == "engine_error"


async def test_a_stream_of_bytes_that_fails_does_not_end_as_if_it_were_whole(way: str) -> None:
    ticks = Ticks(3, 0, error=EngineError("The engine failed.", code="engine_error"))
    ticks.headers = ((b"content-type", b"application/octet-stream"),)
    async with serving(way, [Route.buffered("/v1/ticks", ticks.answer)]) as bench:
        peer = await bench.connect()
        await peer.send(TICKS)
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError, ValueError)):
            await head_of(peer)
            await chunks(peer)


class Uploads:
    """Handlers of the upload route. `store` starts to read when `may_read` is set."""

    def __init__(self) -> None:
        self.may_read = asyncio.Event()
        self.may_read.set()
        self.has_begun = asyncio.Event()
        self.has_ended = asyncio.Event()
        self.largest = 0
        self.size = 0

    async def store(self, head: RequestHead, body: BodyStream) -> Reply:
        self.has_begun.set()
        digest = hashlib.sha256()
        try:
            await self.may_read.wait()
            async for piece in body:
                self.largest = max(self.largest, len(piece))
                self.size += len(piece)
                digest.update(piece)
        finally:
            self.has_ended.set()
        answer = {
            "bytes": self.size,
            "sha256": digest.hexdigest(),
            "type": (head.header(b"content-type") or b"").decode(),
        }
        return Reply(200, ((b"content-type", b"application/json"),), json.dumps(answer).encode())

    async def refuse(self, head: RequestHead, body: BodyStream) -> Reply:
        raise BadRequestError("A file needs a purpose.", param="purpose")


@pytest.fixture
def uploads() -> Uploads:
    return Uploads()


@contextlib.asynccontextmanager
async def taking(
    way: str,
    handler: Callable[[RequestHead, BodyStream], Awaitable[Reply]],
    *,
    max_bytes: int = 64 * MIB,
    seconds: float | None = None,
) -> AsyncIterator[Bench]:
    route = Route.streamed("/v1/uploads", handler, max_bytes=max_bytes, seconds=seconds)
    async with serving(way, [route]) as bench:
        yield bench


def framed(framing: str, piece: bytes) -> bytes:
    return piece if framing == "sized" else b"%x\r\n%b\r\n" % (len(piece), piece)


def head_for(framing: str, size: int) -> bytes:
    length = b"content-length: %d" % size if framing == "sized" else b"transfer-encoding: chunked"
    return UPLOAD + b"content-type: text/csv\r\n" + length + b"\r\n\r\n"


FRAMINGS = pytest.mark.parametrize("framing", ["sized", "chunked"])


@FRAMINGS
async def test_an_upload_of_64_mib_is_held_in_small_pieces(framing: str, way: str, uploads: Uploads) -> None:
    size, piece = 64 * MIB, bytes(range(256)) * 512
    async with taking(way, uploads.store) as bench:
        peer = await bench.connect()
        tracemalloc.start()
        try:
            await peer.send(head_for(framing, size))
            for _ in range(size // len(piece)):
                await peer.send(framed(framing, piece))
            await peer.send(b"" if framing == "sized" else b"0\r\n\r\n")
            status, answer = await peer.answer()
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert (status, answer["bytes"], answer["type"]) == (200, size, "text/csv")
    assert answer["sha256"] == hashlib.sha256(piece * (size // len(piece))).hexdigest()
    assert uploads.largest <= MOST_UNREAD
    assert peak < 4 * MIB, f"{peak / MIB:.1f} MiB, including the client in this process"


@FRAMINGS
async def test_while_a_handler_does_not_read_neither_does_the_gateway(framing: str, way: str, uploads: Uploads) -> None:
    uploads.may_read.clear()
    piece = b"x" * (128 * KIB)
    async with taking(way, uploads.store) as bench:
        peer = await bench.connect()
        await peer.send(head_for(framing, 32 * MIB))
        await uploads.has_begun.wait()

        async def send() -> None:
            for _ in range(32 * MIB // len(piece)):
                await peer.send(framed(framing, piece))
            await peer.send(b"" if framing == "sized" else b"0\r\n\r\n")

        sending = asyncio.create_task(send())
        await asyncio.wait({sending}, timeout=0.2)
        assert not sending.done(), "32 MiB were accepted while the handler read nothing"
        uploads.may_read.set()
        await sending
        assert (await peer.answer())[1]["bytes"] == 32 * MIB
    assert uploads.largest <= MOST_UNREAD


@FRAMINGS
async def test_a_hang_up_ends_an_upload(framing: str, way: str, uploads: Uploads) -> None:
    async with taking(way, uploads.store) as bench:
        peer = await bench.connect()
        await peer.send(head_for(framing, MIB) + framed(framing, b"x" * 1000))
        await uploads.has_begun.wait()
        peer.writer.close()
        await uploads.has_ended.wait()
        await bench.parts.requests_in_flight.empty()
        assert bench.parts.metrics.http_requests.values == {("/v1/uploads", "499"): 1}


@FRAMINGS
async def test_an_upload_that_stalls_is_a_408(framing: str, way: str, uploads: Uploads) -> None:
    async with taking(way, uploads.store, seconds=0.1) as bench:
        peer = await bench.connect()
        await peer.send(head_for(framing, MIB) + framed(framing, b"x" * 1000))
        assert await peer.code() == (408, "request_timeout")
        assert await peer.is_closed()


@FRAMINGS
async def test_an_upload_above_its_limit_is_a_413(framing: str, way: str, uploads: Uploads) -> None:
    async with taking(way, uploads.store, max_bytes=MIB) as bench:
        peer = await bench.connect()
        for size in (MIB + 1, 2 * MIB):
            await peer.send(head_for(framing, size) + framed(framing, b"x" * size))
            await peer.send(b"" if framing == "sized" else b"0\r\n\r\n")
            assert await peer.code() == (413, "request_too_large")
        await peer.send(head_for(framing, 2) + framed(framing, b"{}") + (b"" if framing == "sized" else b"0\r\n\r\n"))
        assert (await peer.answer())[0] == 200, "the refused bodies were read to their end"


@FRAMINGS
async def test_an_upload_far_above_its_limit_is_not_read_to_its_end(framing: str, way: str, uploads: Uploads) -> None:
    async with taking(way, uploads.store, max_bytes=64 * KIB) as bench:
        peer = await bench.connect()
        await peer.send(head_for(framing, 64 * MIB))
        with contextlib.suppress(ConnectionError):
            for _ in range(64):
                await peer.send(framed(framing, b"x" * MIB))
        with contextlib.suppress(
            ConnectionError, asyncio.IncompleteReadError
        ):  # the connection was closed while the client wrote
            assert await peer.code() == (413, "request_too_large")
        assert await peer.is_closed()
        await bench.parts.requests_in_flight.empty()
        assert bench.parts.metrics.http_requests.values == {("/v1/uploads", "413"): 1}


@FRAMINGS
async def test_an_upload_that_is_refused_unread_leaves_the_connection_in_order(
    framing: str, way: str, uploads: Uploads
) -> None:
    piece = b"x" * (128 * KIB)
    async with taking(way, uploads.refuse) as bench:
        peer = await bench.connect()
        for _ in range(2):
            await peer.send(head_for(framing, 16 * len(piece)))
            for _ in range(16):
                await peer.send(framed(framing, piece))
            await peer.send(b"" if framing == "sized" else b"0\r\n\r\n")
            assert (await peer.answer())[1]["error"]["param"] == "purpose"
