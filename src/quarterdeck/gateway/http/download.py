"""A stored file as an answer: its bytes or a range of them, as fast as the client reads."""

import re
from collections.abc import AsyncGenerator
from contextlib import aclosing

from quarterdeck.errors import APIError, BadRequestError, StorageUnavailableError
from quarterdeck.inference.call import Sink

_RANGE = re.compile(rb"bytes=(\d{0,18})-(\d{0,18})")


class RangeNotSatisfiableError(BadRequestError):
    status, default_code = 416, "range_not_satisfiable"


class Download:
    """A stream of `size` bytes. `error`: why it ended early; the lifecycle then breaks the connection, so that the
    client does not take a part for the whole."""

    def __init__(self, pieces: AsyncGenerator[bytes], size: int) -> None:
        self.error: APIError | None = None
        self._pieces = pieces
        self._left = size

    async def pump(self, sink: Sink) -> None:
        try:
            async with aclosing(self._pieces) as pieces:
                async for piece in pieces:
                    self._left -= len(piece)
                    if not sink.put(piece):
                        await sink.room()
            if self._left:
                raise StorageUnavailableError("The stored content is shorter than it was.")
        except APIError as error:
            self.error = error
            raise

    async def aclose(self) -> None:
        await self._pieces.aclose()


def read_range(header: bytes | None, size: int) -> tuple[int, int] | None:
    """Start and end (exclusive) of the bytes that a Range header asks for. None: all of them; several ranges, and units
    that are not bytes, are ignored, as RFC 9110 allows. Raises RangeNotSatisfiableError."""
    if header is None or (found := _RANGE.fullmatch(header.strip())) is None:
        return None
    first, last = found[1], found[2]
    if not first:
        if not last:
            return None
        start, end = max(0, size - int(last)), size
    else:
        start, end = int(first), size if not last else min(int(last) + 1, size)
        if last and int(last) < start:
            return None
    if start >= size:
        raise RangeNotSatisfiableError(
            f"The file has {size} bytes.", param="Range", headers={"content-range": f"bytes */{size}"}
        )
    return start, end
