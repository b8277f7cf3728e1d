"""Batches socket writes: what is written in one turn of the event loop is sent at the end of the turn.

Some fifty microseconds of our own work lie between two sends, in which the peer wakes up, answers and goes back to
sleep; waking it costs the sender more than the send does. When ten sends follow one another directly, only the first
wakes the peer, and the answers come back together, too. A write is delayed by less than one turn; while turns have only
one write each, it is sent at once.
"""

import asyncio
from collections.abc import Callable


class BatchedTransport:
    """The part of a transport's interface that our protocols use; writes wait for the end of the turn."""

    __slots__ = (
        "_pieces",
        "_size",
        "_transport",
        "_writes",
        "get_extra_info",
        "is_closing",
        "on_unsent",
        "pause_reading",
        "resume_reading",
    )

    MAX_BYTES = 64 * 1024
    """Bytes held for one transport. Beyond it they are sent at once, so that the protocol's `pause_writing` comes in
    time."""

    def __init__(self, transport: asyncio.Transport, writes: "WriteBatches") -> None:
        self.on_unsent: Callable[[], None] | None = None
        """Called if bytes are left that the peer has not taken when the transport is closed: it stays open until then,
        however long that takes."""
        self._transport = transport
        self._writes = writes
        self._pieces: list[bytes] = []
        self._size = 0
        # The transport's own methods: they are called with every request.
        self.get_extra_info = transport.get_extra_info
        self.is_closing = transport.is_closing
        self.pause_reading = transport.pause_reading
        self.resume_reading = transport.resume_reading

    def write(self, data: bytes) -> None:
        pieces = self._pieces
        self._size = size = self._size + len(data)
        if size > self.MAX_BYTES:
            self._write_large(data)
            return
        waits = pieces or self._writes.add(self)
        pieces.append(data)
        if not waits:
            self.flush()

    def _write_large(self, data: bytes) -> None:
        """Send at once; what is large by itself, without a copy."""
        if len(data) <= self.MAX_BYTES:
            self._pieces.append(data)
            self.flush()
            return
        self.flush()
        if not self.is_closing():
            self._transport.write(data)

    def flush(self) -> None:
        """Send what is held, now."""
        pieces = self._pieces
        if pieces and not self.is_closing():
            self._transport.write(b"".join(pieces))  # joining a single piece returns it without a copy
        pieces.clear()
        self._size = 0

    def close(self) -> None:
        """Close once everything written has been sent."""
        self.flush()
        self._transport.close()
        if self.on_unsent is not None and self._transport.get_write_buffer_size():
            self.on_unsent()

    def abort(self) -> None:
        """Close now; unsent bytes are dropped."""
        self._pieces.clear()
        self._transport.abort()


class WriteBatches:
    """The transports of one event loop that have bytes to send in this turn."""

    def __init__(self) -> None:
        self._due: list[BatchedTransport] = []
        self._count = 0
        """Calls of `add` in this turn. A transport that was sent at once and writes again counts twice."""
        self._is_busy = False
        """Whether the last turn with any write had more than one."""

    def wrap(self, transport: asyncio.Transport) -> BatchedTransport:
        """The transport with batched writes."""
        return BatchedTransport(transport, self)

    def add(self, transport: BatchedTransport) -> bool:
        """Register a transport that has bytes to send. False: it may send at once, as the last turn had one write."""
        self._count += 1
        if self._count == 1:
            asyncio.get_running_loop().call_soon(self._flush)
            if not self._is_busy:
                return False
        self._due.append(transport)
        return True

    def _flush(self) -> None:
        self._is_busy, self._count = self._count > 1, 0
        due, self._due = self._due, []
        for transport in due:
            transport.flush()
