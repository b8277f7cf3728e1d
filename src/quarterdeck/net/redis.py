"""A Redis client for the hot path: lazily connected, reconnecting, all commands of one event-loop turn in one write.

The gateway sends two commands a request. A general client library costs more there than the rest of the gateway does,
so this one is ours (docs/adr/0005-own-http-client.md). It knows no command but those that open a connection; the words
are written by its callers (`accounting`, `inference/cache`, `worker`). A blocking command (XREADGROUP BLOCK) needs a
`Redis` of its own.
"""

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from quarterdeck.net.redis_address import RedisAddress
from quarterdeck.net.redis_connection import (
    Receiver,
    RedisConnection,
    RedisError,
    RedisSilentError,
    RedisUnavailableError,
    Word,
    pack,
    pack_arguments,
)

__all__ = [
    "Receiver",
    "Redis",
    "RedisError",
    "RedisSilentError",
    "RedisUnavailableError",
    "Script",
    "Word",
    "is_unknown_script",
    "pack_arguments",
]


@dataclass(frozen=True)
class Script:
    """A Lua script, run by its SHA-1 and loaded where Redis does not know it (after a restart or a fail-over)."""

    source: str
    sha: str = field(init=False)

    def __post_init__(self) -> None:
        # SHA-1 is Redis' name for a script, not a safeguard.
        object.__setattr__(self, "sha", hashlib.sha1(self.source.encode(), usedforsecurity=False).hexdigest())

    def command(self, keys: Sequence[Word], args: Sequence[Word]) -> bytes:
        """The packed EVALSHA command."""
        return pack("EVALSHA", self.sha, len(keys), *keys, *args)

    def command_prefix(self, *, keys: int, args: int) -> bytes:
        """The packed EVALSHA command up to its first key. `keys` keys and `args` arguments must follow, packed by
        `pack_arguments`."""
        return b"*%d\r\n" % (3 + keys + args) + pack_arguments("EVALSHA", self.sha, keys)


def is_unknown_script(error: BaseException) -> bool:
    """Whether Redis does not know the script (NOSCRIPT): it was not run and may be sent again."""
    return isinstance(error, RedisError) and str(error).startswith("NOSCRIPT")


class Redis:
    """A client of one server, with one connection.

    `reply_timeout` bounds every call, in seconds; None for blocking commands. `on_state` is called once with False when
    Redis goes away and once with True when it is back. Meanwhile calls fail at once, except one every `retry_seconds`
    that tries to reconnect: a request does not wait for a Redis that is known to be down.
    """

    def __init__(
        self,
        url: str,
        *,
        connect_timeout: float = 2.0,
        reply_timeout: float | None = 5.0,
        retry_seconds: float = 0.5,
        on_state: Callable[[bool], None] = lambda up: None,
    ) -> None:
        self._address = RedisAddress.parse(url)
        self._connect_timeout = connect_timeout
        self._reply_timeout = reply_timeout
        self._retry_seconds = retry_seconds
        self._on_state = on_state
        self._connection: RedisConnection | None = None
        self._connecting: asyncio.Task[RedisConnection] | None = None
        self._retry_at = 0.0
        self._is_up: bool | None = None

    async def call(self, *words: Word) -> Any:
        """Run one command. Strings in the reply are bytes.

        Raises RedisError, or RedisUnavailableError if there is no connection or no reply in time.
        """
        return await self._request(pack(*words))

    async def run(self, script: Script, keys: Sequence[Word], args: Sequence[Word]) -> Any:
        """Run a script by its SHA-1; load it first where Redis does not know it. Raises as `call`."""
        return await self.execute(script, script.command(keys, args))

    async def execute(self, script: Script, command: bytes) -> Any:
        """Run a script by a command that is packed already. Raises as `call`."""
        connection = self._connection
        if connection is None or not connection.is_open:
            connection = await self._connected()
        try:
            return await connection.request(command)
        except RedisError as error:
            if not is_unknown_script(error):
                raise
        await self.call("SCRIPT", "LOAD", script.source)
        return await self._request(command)

    def send(self, command: bytes, receiver: Receiver) -> bool:
        """Send a packed command without a coroutine. False: no connection is open; use `execute`, which opens one.

        The receiver may get the RedisError that `is_unknown_script` recognises; `execute` helps then as well.
        """
        connection = self._connection
        if connection is None or not connection.is_open:
            return False
        connection.send(command, receiver)
        return True

    def call_before_flush(self, callback: Callable[[], None], *, first: bool = False) -> None:
        """Call `callback` once at the end of this turn of the loop, before its commands are written, so that what was
        collected until then leaves as one command. `first`: ahead of other callbacks; a request waits for the reply."""
        connection = self._connection
        if connection is not None and connection.is_open:
            connection.call_before_flush(callback, first=first)
        else:
            asyncio.get_running_loop().call_soon(callback)

    def set_reply_timeout(self, seconds: float | None) -> None:
        """Bound replies by `seconds` from now on, those of the open connection included."""
        self._reply_timeout = seconds
        if self._connection is not None:
            self._connection.set_reply_timeout(seconds)

    async def close(self) -> None:
        """Close the connection. Calls in flight fail."""
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.gather(self._connecting, return_exceptions=True)
        if self._connection is not None:
            connection, self._connection = self._connection, None
            connection.abort()
            await asyncio.sleep(0)

    async def _request(self, command: bytes) -> Any:
        connection = self._connection
        if connection is None or not connection.is_open:
            connection = await self._connected()
        return await connection.request(command)

    async def _connected(self) -> RedisConnection:
        loop = asyncio.get_running_loop()
        if self._is_up is False and (self._connecting is not None or loop.time() < self._retry_at):
            raise RedisUnavailableError("Redis is away")
        if self._connecting is None:
            self._connecting = loop.create_task(self._connect())
            self._connecting.add_done_callback(self._connect_done)
        return await asyncio.shield(self._connecting)

    def _connect_done(self, task: asyncio.Task[RedisConnection]) -> None:
        self._connecting = None
        if not task.cancelled():
            task.exception()  # mark it retrieved: every caller may have been cancelled

    async def _connect(self) -> RedisConnection:
        connection = RedisConnection(self._connection_lost, self._reply_timeout)
        try:
            async with asyncio.timeout(self._connect_timeout):
                await self._open(connection)
        except (OSError, UnicodeError, TimeoutError, RedisError, RedisUnavailableError) as error:
            connection.abort()
            self._set_state(up=False)
            raise RedisUnavailableError(f"Redis can't be reached: {str(error) or 'no answer in time'}") from error
        except asyncio.CancelledError as error:  # by `close`: callers that wait are refused, not cancelled
            connection.abort()
            raise RedisUnavailableError("the connection to Redis was closed") from error
        self._connection = connection
        self._set_state(up=True)
        return connection

    async def _open(self, connection: RedisConnection) -> None:
        address = self._address
        loop = asyncio.get_running_loop()
        if address.path is not None:
            await loop.create_unix_connection(lambda: connection, address.path)
        else:
            await loop.create_connection(lambda: connection, address.host, address.port, ssl=address.ssl_context())
        if auth := address.auth_command():
            await connection.request(pack(*auth))
        if address.database:
            await connection.request(pack("SELECT", address.database))
        # A Redis that is loading its file accepts connections and replies LOADING to every command: it is not back yet.
        await connection.request(pack("PING"))

    def _connection_lost(self, connection: RedisConnection) -> None:
        if connection is self._connection:
            self._connection = None
            self._set_state(up=False)

    def _set_state(self, *, up: bool) -> None:
        if not up:
            self._retry_at = asyncio.get_running_loop().time() + self._retry_seconds
        if self._is_up is not up:
            is_news = self._is_up is not None or not up
            self._is_up = up
            if is_news:
                self._on_state(up)
