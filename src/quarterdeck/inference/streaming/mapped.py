"""A stream in another protocol: each piece of it is mapped on its way to the client."""

from typing import Protocol

from quarterdeck.errors import APIError
from quarterdeck.inference.call import Sink, Stream


class Maps(Protocol):
    """Maps pieces of whole events, without waiting."""

    def feed(self, whole: bytes) -> bytes: ...


class MappedStream:
    """A `Stream` whose pieces are those of another one, mapped."""

    def __init__(self, stream: Stream, mapper: Maps) -> None:
        self._stream = stream
        self._mapper = mapper

    @property
    def error(self) -> APIError | None:
        """What the client was sent as the last event."""
        return getattr(self._stream, "error", None)

    async def pump(self, sink: Sink) -> None:
        await self._stream.pump(_MappingSink(sink, self._mapper))

    async def aclose(self) -> None:
        await self._stream.aclose()


class _MappingSink:
    def __init__(self, sink: Sink, mapper: Maps) -> None:
        self._sink = sink
        self._mapper = mapper

    def put(self, piece: bytes) -> bool:
        mapped = self._mapper.feed(piece)
        return self._sink.put(mapped) if mapped else True

    async def room(self) -> None:
        await self._sink.room()
