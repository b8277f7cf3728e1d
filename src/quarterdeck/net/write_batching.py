"""What is written to sockets in one turn of the event loop leaves together, at the end of the turn.

Between two sends lie some fifty microseconds of ours, in which the other side wakes up for the first, answers it and
goes to sleep again; waking it costs the sender more than the send. Of ten that follow one another only the first wakes
anybody, and what they cause comes back together, too. A piece waits for less than a turn; where turns have only one, it
is sent at once.
"""

import asyncio


class GatheredTransport:
    """A transport as far as its users look at it, whose writes wait for the end of the turn."""

    __slots__ = (
        "_departures",
        "_pieces",
        "_size",
        "_transport",
        "get_extra_info",
        "is_closing",
        "pause_reading",
        "resume_reading",
    )

    MOST_BYTES = 64 * 1024
    """Gathered for one; then they leave at once, so that its protocol hears in time that there is no room."""

    def __init__(self, transport: asyncio.Transport, departures: "Departures") -> None:
        self._transport = transport
        self._departures = departures
        self._pieces: list[bytes] = []
        self._size = 0
        # The transport's own, as they are asked with every request.
        self.get_extra_info = transport.get_extra_info
        self.is_closing = transport.is_closing
        self.pause_reading = transport.pause_reading
        self.resume_reading = transport.resume_reading

    def write(self, data: bytes) -> None:
        waits = bool(self._pieces) or self._departures.add(self)
        self._pieces.append(data)
        self._size += len(data)
        if not waits or self._size > self.MOST_BYTES:
            self.flush()

    def flush(self) -> None:
        """Let go what is gathered, now."""
        pieces = self._pieces
        if pieces and not self.is_closing():
            self._transport.write(b"".join(pieces))  # of one it is that one
        pieces.clear()
        self._size = 0

    def close(self) -> None:
        """Once all of it has been sent."""
        self.flush()
        self._transport.close()

    def abort(self) -> None:
        """Now, and whatever is not sent is lost."""
        self._pieces.clear()
        self._transport.abort()


class Departures:
    """Of one loop: transports that have something to send."""

    def __init__(self) -> None:
        self._due: list[GatheredTransport] = []
        self._count = 0
        """How often somebody came in this turn; who went at once and has more comes again."""
        self._is_busy = False
        """So it was more than once in the last turn in which anybody came."""

    def gathered(self, transport: asyncio.Transport) -> GatheredTransport:
        return GatheredTransport(transport, self)

    def add(self, transport: GatheredTransport) -> bool:
        """It has something now. False: nobody need wait for others, as the turn before had none, and it may send it."""
        self._count += 1
        if self._count == 1:
            asyncio.get_running_loop().call_soon(self._leave)
            if not self._is_busy:
                return False
        self._due.append(transport)
        return True

    def _leave(self) -> None:
        self._is_busy, self._count = self._count > 1, 0
        due, self._due = self._due, []
        for transport in due:
            transport.flush()
