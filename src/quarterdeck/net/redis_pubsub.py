"""Redis pub/sub: one channel, on a connection of its own.

Redis keeps no message for a subscriber that is disconnected. So `on_state` reports when the subscription begins and
ends, and its owner must read again what it may have missed.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import hiredis

from quarterdeck.net.redis_address import RedisAddress
from quarterdeck.net.redis_connection import RedisUnavailableError, pack
from quarterdeck.net.redis_topology import locator_of

log = logging.getLogger(__name__)

CONNECT_SECONDS = 2.0
PING_SECONDS = 1.0
"""A connection is pinged after this much silence."""
MAX_PINGS = 3
"""Unanswered pings before the connection is closed: a half-open connection would stay silent for ever."""
RETRY_SECONDS = 0.5
READ_BYTES = 64 * 1024


class _LostError(Exception):
    """The connection ended, or Redis replied with an error."""


class Subscription:
    """One channel. `on_state` is called with True at each (re)subscription, and once with False when the channel is
    lost; `on_message` with each message. Neither may block."""

    def __init__(
        self,
        url: str,
        channel: str,
        *,
        on_state: Callable[[bool], None],
        on_message: Callable[[bytes], None],
        ping_seconds: float = PING_SECONDS,
        retry_seconds: float = RETRY_SECONDS,
    ) -> None:
        self._address = RedisAddress.parse(url)
        self._locator = locator_of(self._address)
        self._channel = channel
        self._on_state = on_state
        self._on_message = on_message
        self._ping_seconds = ping_seconds
        self._retry_seconds = retry_seconds
        self._is_down = self._was_up = False
        self._reason = ""
        """Why it is down, as logged."""
        self._locator.on_change = self._leave
        self._writer: asyncio.StreamWriter | None = None

    async def run(self) -> None:
        """Subscribe and listen until cancelled; reconnect after a failure, to the server that serves by then."""
        try:
            while True:
                await self._attempt()
                await asyncio.sleep(self._retry_seconds)
        finally:
            await self._locator.close()

    async def _attempt(self) -> None:
        try:
            await self._listen()
        except (OSError, TimeoutError, UnicodeError, _LostError, RedisUnavailableError, hiredis.ProtocolError) as error:
            reason = str(error) or "no answer in time"
            if reason != self._reason:  # logged once, not with each retry
                what = "lost the subscription" if self._reason == "" and self._was_up else "cannot subscribe"
                log.warning("%s to %s: %s", what, self._channel, reason)
                self._reason = reason
            if not self._is_down:
                self._is_down = True
                self._on_state(False)

    async def _listen(self) -> None:
        async with asyncio.timeout(CONNECT_SECONDS):
            reader, writer = await self._connect()
        self._writer = writer
        try:
            if auth := self._address.auth_command():
                writer.write(pack(*auth))
            writer.write(pack("SUBSCRIBE", self._channel))
            await self._read(reader, writer)
        finally:
            self._writer = None
            writer.close()

    def _leave(self) -> None:
        """Close the connection: another server is the primary by now."""
        if self._writer is not None:
            self._writer.transport.abort()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        server = await self._locator.locate()
        if server.path is not None:
            return await asyncio.open_unix_connection(server.path)
        return await asyncio.open_connection(server.host, server.port, ssl=self._address.ssl_context())

    async def _read(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        parser = hiredis.Reader()
        pings = 0
        while True:
            try:
                async with asyncio.timeout(self._ping_seconds):
                    data = await reader.read(READ_BYTES)
            except TimeoutError:
                if pings == MAX_PINGS:
                    raise
                pings += 1
                writer.write(pack("PING"))
                continue
            if not data:
                raise _LostError("the connection was closed")
            pings = 0
            parser.feed(data)
            while (reply := parser.gets()) is not False:
                self._dispatch(reply)

    def _dispatch(self, reply: Any) -> None:
        if isinstance(reply, hiredis.ReplyError):
            raise _LostError(str(reply))
        kind = reply[0] if isinstance(reply, list) else reply
        if kind == b"message":
            self._on_message(reply[2])
        elif kind == b"subscribe":
            if self._is_down:
                log.info("subscribed to %s again", self._channel)
            self._is_down, self._was_up, self._reason = False, True, ""
            self._on_state(True)
