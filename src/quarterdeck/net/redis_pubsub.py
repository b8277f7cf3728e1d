"""Redis' pub/sub, on a connection of its own: what is published while it is heard, and word of when it was not.

Nothing is kept for one who is away. So whoever listens is told when listening begins and when it ends, and asks the
truth itself for what it may have missed.
"""

import asyncio
import logging
import ssl
from collections.abc import Callable
from typing import Any

import hiredis

from quarterdeck.net.redis import Address, Word

log = logging.getLogger(__name__)

CONNECT_SECONDS = 2.0
PING_SECONDS = 1.0
"""A connection that is silent for so long is asked whether it lives."""
MOST_PINGS = 3
"""Asked in vain so often, it is given up: a half-open connection would be silent for ever."""
RETRY_SECONDS = 0.5


class _LostError(Exception):
    """The connection ended, or says what it may not say."""


class Subscription:
    """One channel. `on_state` is told True each time it begins to be heard, False once when it is not any more (or not
    yet), `on_message` what is said; both return at once."""

    def __init__(
        self, url: str, channel: str, *, on_state: Callable[[bool], None], on_message: Callable[[bytes], None]
    ) -> None:
        self._address = Address.parse(url)
        self._channel = channel
        self._on_state = on_state
        self._on_message = on_message
        self._is_down = False

    async def run(self) -> None:
        """Listen until cancelled; what ends is begun again."""
        while True:
            try:
                await self._listen()
            except (OSError, TimeoutError, UnicodeError, _LostError, hiredis.ProtocolError) as error:
                if not self._is_down:  # once: it is tried twice a second
                    log.warning("%s is not heard: %s", self._channel, str(error) or "no answer in time")
                    self._is_down = True
                    self._on_state(False)
            await asyncio.sleep(RETRY_SECONDS)

    async def _listen(self) -> None:
        async with asyncio.timeout(CONNECT_SECONDS):
            reader, writer = await self._open()
        try:
            address = self._address
            if address.password is not None:
                writer.write(_pack("AUTH", *([address.username] if address.username else []), address.password))
            writer.write(_pack("SUBSCRIBE", self._channel))
            await self._hear(reader, writer)
        finally:
            writer.close()

    async def _open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        address = self._address
        if address.path is not None:
            return await asyncio.open_unix_connection(address.path)
        context = ssl.create_default_context() if address.tls else None
        return await asyncio.open_connection(address.host, address.port, ssl=context)

    async def _hear(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        parser = hiredis.Reader()
        pings = 0
        while True:
            try:
                async with asyncio.timeout(PING_SECONDS):
                    data = await reader.read(65536)
            except TimeoutError:
                if pings == MOST_PINGS:
                    raise
                pings += 1
                writer.write(_pack("PING"))
                continue
            if not data:
                raise _LostError("the connection was closed")
            pings = 0
            parser.feed(data)
            while (reply := parser.gets()) is not False:
                self._take(reply)

    def _take(self, reply: Any) -> None:
        if isinstance(reply, hiredis.ReplyError):
            raise _LostError(str(reply))
        kind = reply[0] if isinstance(reply, list) else reply
        if kind == b"message":
            self._on_message(reply[2])
        elif kind == b"subscribe":
            if self._is_down:
                log.info("%s is heard again", self._channel)
            self._is_down = False
            self._on_state(True)


def _pack(*words: Word) -> bytes:
    packed: bytes = hiredis.pack_command(words)  # type: ignore[arg-type]  # its stub means a tuple of one; it takes any
    return packed
