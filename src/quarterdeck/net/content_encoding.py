"""Compressed responses: some servers send them unasked.

`Decoded` is read like the connection that it wraps.
"""

import zlib
from collections.abc import Callable

from quarterdeck.net.http_connection import HttpConnection, UpstreamError

MAX_PIECE_BYTES = 16 * 1024 * 1024
"""What one piece from the network (at most a quarter of a MiB) may become. More is an attack or a fault."""

MAX_MEMBERS = 64
"""Parts of a gzip body in one piece. There is mostly one; thousands of empty ones would cost more than they carry."""


_NOTHING = (b"identity", b"none", b"utf-8", b"")
"""What some servers call a body that is not compressed."""
_TEXT = (b"{", b"[", b"d", b":", b" ", b"\n", b"\r")
"""How a body of ours begins that is not compressed, whatever its header says: a proxy has decompressed it. gzip
begins with 1f 8b."""


def coding_of(header: bytes) -> bytes | None:
    """The coding of a Content-Encoding header. None: the body is not compressed."""
    codings = [each for part in header.lower().split(b",") if (each := part.strip()) not in _NOTHING]
    return b",".join(codings) or None


class Decoded:
    """A connection whose response is compressed with gzip or deflate."""

    __slots__ = ("_connection", "_decoder", "_encoding", "_is_plain")

    def __init__(self, connection: HttpConnection, encoding: bytes) -> None:
        """Raises UpstreamError for another encoding."""
        self._encoding = encoding.strip().lower()
        if self._encoding not in (b"gzip", b"x-gzip", b"deflate"):
            raise self._error(connection, "a content-encoding that was not asked for")
        self._connection = connection
        self._decoder: zlib._Decompress | None = None
        self._is_plain = False

    @property
    def done(self) -> bool:
        return self._connection.done

    def take(self) -> bytes | None:
        """Everything that has arrived; None: nothing has; b"": the end. Raises UpstreamError."""
        while piece := self._connection.take():
            if data := self._decode(piece):
                return data
        if piece is not None and not self._is_whole():
            raise self._error(self._connection, "a compressed body that is cut off")
        return piece

    async def read(self) -> bytes:
        """Wait for data; b"" at the end. Raises UpstreamError."""
        while piece := await self._connection.read():
            if data := self._decode(piece):
                return data
        if not self._is_whole():
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

    def _is_whole(self) -> bool:
        return self._decoder is None or self._decoder.eof

    @property
    def listener(self) -> Callable[[], None] | None:
        return self._connection.listener

    @listener.setter
    def listener(self, listener: Callable[[], None] | None) -> None:
        self._connection.listener = listener

    def _decode(self, piece: bytes) -> bytes:
        if self._is_plain:
            return piece
        if self._decoder is None:
            if self._encoding != b"deflate" and piece.startswith(_TEXT):
                self._is_plain = True
                return piece
            self._decoder = self._new_decoder(piece)
        data, left, members = b"", MAX_PIECE_BYTES, 0
        while piece:
            members += 1
            if members > MAX_MEMBERS:
                raise self._error(self._connection, "a compressed body of too many parts")
            if self._decoder.eof:  # gzip may have several members
                self._decoder = self._new_decoder(piece)
            try:
                data += self._decoder.decompress(piece, left + 1 - len(data))
            except zlib.error as error:
                raise self._error(self._connection, "a compressed body that is invalid") from error
            if len(data) > left:
                raise self._error(self._connection, f"a compressed body of more than {MAX_PIECE_BYTES} bytes")
            piece = self._decoder.unused_data
        return data

    def _new_decoder(self, piece: bytes) -> "zlib._Decompress":
        if self._encoding != b"deflate":
            return zlib.decompressobj(zlib.MAX_WBITS | 16)
        has_header = piece[0] & 0x0F == 8  # some servers send deflate without zlib's header
        return zlib.decompressobj(zlib.MAX_WBITS if has_header else -zlib.MAX_WBITS)

    @staticmethod
    def _error(connection: HttpConnection, what: str) -> UpstreamError:
        return UpstreamError(f"the server sent {what}", sent=True, answered=True, status=connection.status)
