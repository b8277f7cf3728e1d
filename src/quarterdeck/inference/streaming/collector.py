"""Collects a stream's events for the cache while they pass through the tap."""

from collections.abc import Callable
from typing import Protocol

import msgspec


class Collects(Protocol):
    """Receives a stream's pieces: for the cache, or for what is captured of the request."""

    def add(self, piece: bytes, /) -> None: ...


class Collector(msgspec.Struct, eq=False):
    """Keeps the pieces of a stream up to `max_bytes`; past that it drops them and calls `on_full` once."""

    max_bytes: int
    on_full: Callable[[], None] = lambda: None
    pieces: list[bytes] | None = []
    size: int = 0

    def add(self, piece: bytes) -> None:
        if self.pieces is not None:
            self.pieces.append(piece)
            self.size += len(piece)
            if self.size > self.max_bytes:
                self.pieces = None
                self.on_full()

    def body(self) -> bytes | None:
        """The whole stream. None: it exceeded `max_bytes`."""
        return None if self.pieces is None else b"".join(self.pieces)
