"""Compressed responses: some servers send them unasked.

`Decoded` is read like the connection that it wraps.
"""

import zlib
from collections.abc import Callable

from quarterdeck.net.http_connection import HttpConnection, UpstreamError

MAX_PIECE_BYTES = 16 * 1024 * 1024
"""What one piece from the network (at most a quarter of a MiB) may become. More is an attack or a fault."""


class Decoded:
    """A connection whose response is compressed with gzip or deflate."""

    __slots__ = ("_connection", "_decoder", "_encoding")

    def __init__(self, connection: HttpConnection, encoding: bytes) -> None:
        """Raises UpstreamError for another encoding."""
        self._encoding = encoding.strip().lower()
        if self._encoding not in (b"gzip", b"x-gzip", b"deflate"):
            raise self._error(connection, "a content-encoding that was not asked for")
        self._connection = connection
        self._decoder = zlib.decompressobj(zlib.MAX_WBITS | (0 if self._encoding == b"deflate" else 16))

    @property
    def done(self) -> bool:
        return self._connection.done

    def take(self) -> bytes | None:
        """Everything that has arrived; None: nothing has; b"": the end. Raises UpstreamError."""
        while piece := self._connection.take():
            if data := self._decode(piece):
                return data
        if piece is not None and not self._decoder.eof:
            raise self._error(self._connection, "a compressed body that is cut off")
        return piece

    async def read(self) -> bytes:
        """Wait for data; b"" at the end. Raises UpstreamError."""
        while piece := await self._connection.read():
            if data := self._decode(piece):
                return data
        if not self._decoder.eof:
            raise self._error(self._connection, "a compressed body that is cut off")
        return b""

    async def read_all(self, limit: int) -> bytes:
        """The rest of the body. Raises UpstreamError, also if it exceeds `limit` bytes."""
        pieces, size = [], 0
        while piece := await self.read():
            pieces.append(piece)
            size += len(piece)
            if size > limit:
                raise self._error(self._connection, f"a response of more than {limit} bytes")
        return b"".join(pieces)

    @property
    def listener(self) -> Callable[[], None] | None:
        return self._connection.listener

    @listener.setter
    def listener(self, listener: Callable[[], None] | None) -> None:
        self._connection.listener = listener

    def _decode(self, piece: bytes) -> bytes:
        try:
            data = self._decoder.decompress(piece, MAX_PIECE_BYTES)
        except zlib.error as error:
            raise self._error(self._connection, "a compressed body that is invalid") from error
        if self._decoder.unconsumed_tail:
            raise self._error(self._connection, f"a compressed body of more than {MAX_PIECE_BYTES} bytes")
        return data

    @staticmethod
    def _error(connection: HttpConnection, what: str) -> UpstreamError:
        return UpstreamError(f"the server sent {what}", sent=True, answered=True, status=connection.status)
