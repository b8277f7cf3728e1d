"""A forward proxy for tests: it tunnels (CONNECT) and forwards requests in absolute form, whatever their host."""

import asyncio
import contextlib
import re
from types import TracebackType
from typing import Self


class ForwardProxy:
    """`async with ForwardProxy(port) as proxy`: whatever host a client names is 127.0.0.1:`port`."""

    def __init__(self, port: int, *, status: int = 200) -> None:
        self._port = port
        self._status = status
        self.heads: list[bytes] = []
        """The heads of the requests to the proxy itself."""
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        upstream: asyncio.StreamWriter | None = None
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            self.heads.append(head)
            source, upstream = await asyncio.open_connection("127.0.0.1", self._port)
            if head.startswith(b"CONNECT "):
                writer.write(b"HTTP/1.1 %d X\r\nx-proxy: 1\r\n\r\n" % self._status)
                if self._status >= 300:
                    return
                await asyncio.gather(_copy(reader, upstream), _copy(source, writer))
            else:
                await asyncio.gather(self._forward(head, reader, upstream), _copy(source, writer))
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # either side has disconnected
        except asyncio.CancelledError:
            writer.transport.abort()  # the test is over
        finally:
            self._tasks.discard(task)
            for each in (writer, upstream):
                if each is not None:
                    each.close()
                    with contextlib.suppress(ConnectionError, asyncio.CancelledError):
                        await each.wait_closed()

    async def _forward(self, head: bytes, reader: asyncio.StreamReader, upstream: asyncio.StreamWriter) -> None:
        """Forward this request and those that follow on the connection, each to its path."""
        while True:
            method, target, rest = head.split(b" ", 2)
            length = int(re.search(rb"content-length: (\d+)", head)[1])  # type: ignore[index]  # each has one
            upstream.write(b"%b /%b %b" % (method, target.removeprefix(b"http://").split(b"/", 1)[1], rest))
            upstream.write(await reader.readexactly(length))
            try:
                head = await reader.readuntil(b"\r\n\r\n")
            except asyncio.IncompleteReadError:
                upstream.close()
                return
            self.heads.append(head)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()
