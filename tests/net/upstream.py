"""A server that sends what a script says, byte for byte: whole, in pieces, late, cut off, or not HTTP at all.

A script runs once per connection. The requests it received are in `requests`; its failure is raised at the end.
"""

import asyncio
import contextlib
import ssl
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import msgspec

from quarterdeck.net.http_connection import Timeouts
from quarterdeck.net.http_origin import Origin

SOON = Timeouts(connect=2.0, first_byte=5.0, idle=5.0)
"""Long enough for a loaded machine, shorter than a test may take."""


async def until(condition: Callable[[], bool], *, seconds: float = 10.0) -> None:
    """Wait for a state that has no event: the other side of a socket, the inside of a pool."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110  # there is no event to wait for
            await asyncio.sleep(0.002)


@dataclass(frozen=True)
class Seen:
    """A request as it was received."""

    head: bytes
    body: bytes

    @property
    def path(self) -> str:
        return self.head.split(b" ", 2)[1].decode()

    @property
    def json(self) -> dict[str, object]:
        return msgspec.json.decode(self.body, type=dict[str, object])

    def header(self, name: str) -> str | None:
        for line in self.head.split(b"\r\n")[1:]:
            key, _, value = line.partition(b": ")
            if key.decode().lower() == name:
                return value.decode()
        return None


class Peer:
    """A connection, as the script sees it."""

    def __init__(self, upstream: "Upstream", reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._upstream = upstream
        self._reader = reader
        self._writer = writer

    async def request(self) -> Seen:
        """Read a request. Raises IncompleteReadError if the client disconnects instead."""
        head = await self._reader.readuntil(b"\r\n\r\n")
        seen = Seen(head, b"")
        seen = Seen(head, await self._reader.readexactly(int(seen.header("content-length") or 0)))
        self._upstream.requests.append(seen)
        self._upstream.arrived.set()
        return seen

    async def say(self, *pieces: bytes) -> None:
        """Send each piece in its own write."""
        for piece in pieces:
            if self._writer.is_closing():  # uvloop would raise another error
                raise ConnectionResetError
            self._writer.write(piece)
            await self._writer.drain()
            await asyncio.sleep(0)

    async def say_bytewise(self, data: bytes) -> None:
        await self.say(*[data[i : i + 1] for i in range(len(data))])

    @property
    def is_blocked(self) -> bool:
        """Whether `say` waits for the client to read."""
        transport = self._writer.transport
        return transport.get_write_buffer_size() > transport.get_write_buffer_limits()[1]

    async def until_gone(self) -> None:
        """Wait until the client has disconnected."""
        with contextlib.suppress(ConnectionError):
            while await self._reader.read(65536):
                pass

    def reset(self) -> None:
        """Abort the connection."""
        self._writer.transport.abort()


Script = Callable[[Peer], Awaitable[None]]


class Upstream:
    """`async with Upstream(script) as upstream`: listens on a free port until the block ends."""

    def __init__(self, script: Script, *, tls: ssl.SSLContext | None = None) -> None:
        self.script = script
        self.requests: list[Seen] = []
        self.connections = 0
        self.open = 0
        self.arrived = asyncio.Event()
        self.closed = asyncio.Event()
        self._tls = tls
        self._tasks: set[asyncio.Task[None]] = set()
        self._failures: list[BaseException] = []

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    @property
    def origin(self) -> Origin:
        return Origin.parse(self.url)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()
        if error is None and self._failures:
            raise self._failures[0]

    async def stop(self) -> None:
        """Stop listening and abort all connections."""
        self._server.close()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.sleep(0)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        self.open += 1
        try:
            await self.script(Peer(self, reader, writer))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client has disconnected
        except asyncio.CancelledError:
            writer.transport.abort()
        except BaseException as error:
            self._failures.append(error)
        finally:
            self._tasks.discard(task)
            self.open -= 1
            writer.close()
            with contextlib.suppress(ConnectionError, ssl.SSLError, asyncio.CancelledError):
                await writer.wait_closed()
            self.closed.set()


def answering(*answers: bytes | Script) -> Script:
    """One answer per request, in order, over any number of connections; after the last, none, except that there is no
    tokenizer: a gateway that counts what it received would wait for its time-out."""
    waiting = deque(answers)

    async def script(peer: Peer) -> None:
        while True:
            seen = await peer.request()
            if not waiting:
                if seen.path == "/tokenize":
                    await peer.say(response(status=404))
                    continue
                await peer.until_gone()
                return
            answer = waiting.popleft()
            if isinstance(answer, bytes):
                await peer.say(answer)
            else:
                await answer(peer)

    return script


def response(
    body: bytes = b"{}", *, status: int = 200, headers: Iterable[str] = (), content_type: str = "application/json"
) -> bytes:
    """With a content-length."""
    lines = [f"HTTP/1.1 {status} X", f"content-type: {content_type}", f"content-length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def stream_head(*headers: str) -> bytes:
    lines = ["HTTP/1.1 200 OK", "content-type: text/event-stream", "transfer-encoding: chunked", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


def chunk(data: bytes) -> bytes:
    """A chunk of the chunked encoding; b"" makes the last one."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def streamed(*events: bytes) -> bytes:
    """A whole event stream."""
    return stream_head() + b"".join(chunk(event) for event in events if event) + chunk(b"")
