"""Reads streams in tests: to the end, or piece by piece."""

import asyncio
from types import TracebackType
from typing import Self

from quarterdeck.inference.call import Stream
from quarterdeck.protocol import sse


class Collected:
    """A sink that is full after every `capacity` pieces. A piece that comes while it is full fails the test."""

    def __init__(self, capacity: int = 3) -> None:
        self.pieces: list[bytes] = []
        self.capacity = capacity
        self.left = capacity

    def put(self, piece: bytes) -> bool:
        assert self.left, "a piece came although there was no room"
        self.pieces.append(piece)
        self.left -= 1
        return self.left > 0

    async def room(self) -> None:
        await asyncio.sleep(0)
        self.left = self.capacity


async def read_pieces(stream: Stream, capacity: int = 3) -> list[bytes]:
    """All pieces. The stream is not closed."""
    sink = Collected(capacity)
    await stream.pump(sink)
    return sink.pieces


async def read(stream: Stream, capacity: int = 3) -> bytes:
    """The whole stream. It is not closed."""
    return b"".join(await read_pieces(stream, capacity))


class Pieces:
    """Iterates over a stream: the next piece is pumped when it is asked for.

    Leaving the block cancels the pump, as the gateway does when its client disconnects, and closes the stream.
    """

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._queue: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._room = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def put(self, piece: bytes) -> bool:
        self._room.clear()  # here and not in `room`: the reader may take the piece, and ask for the next, before it
        self._queue.put_nowait(piece)
        return False

    async def room(self) -> None:
        await self._room.wait()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        if self._task is None:
            self._task = asyncio.create_task(self._stream.pump(self))
            self._task.add_done_callback(lambda task: self._queue.put_nowait(None))
        self._room.set()
        piece = await self._queue.get()
        if piece is None:
            await self._task
            raise StopAsyncIteration
        return piece

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        await self._stream.aclose()


def text_of(said: bytes) -> str:
    """The content of a streamed chat."""
    chunks = [sse.parse(one) for one in sse.events(said)]
    return "".join(choice["delta"].get("content", "") for chunk in chunks if chunk for choice in chunk["choices"])
