"""One Redis server, with one connection that is opened when it is first needed and again when it was lost.

Which server it is may change: `locate` is asked before each connection. So a fail-over is followed by closing the
connection, whether it shows by silence, by a lost connection or by a reply (`is_not_serving`).
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from quarterdeck.net.redis_address import RedisAddress, RedisServer
from quarterdeck.net.redis_connection import (
    RedisConnection,
    RedisError,
    RedisRefusesError,
    RedisSilentError,
    RedisUnavailableError,
    Word,
    error_code,
    is_not_serving,
    pack,
)
from quarterdeck.net.redis_state import ReportedState

log = logging.getLogger(__name__)

Locate = Callable[[], Awaitable[RedisServer]]
PROBE_KEY = "quarterdeck:probe"


_REFUSED_BUT_SERVING = ("OOM", "MISCONF", "NOPERM")
_WRITE = "return redis.call('SET', KEYS[1], '1', 'XX')"
"""What admission needs: a script that writes. The key is never there, so that nothing changes: each change would be a
line of the append-only file and of the replicas' stream, once a second from each process."""


async def probe(connection: RedisConnection, key: str = PROBE_KEY, *, in_cluster: bool = False) -> None:
    """Delete a key that is never there: a write without a trace. A replica answers PING, but can admit and settle
    nothing.

    Raises RedisUnavailableError where the server is a replica, loads its file, or is none that we can use. Where it has
    no memory, no disk or no right for this key, it is there, and the commands will meet the same.
    """
    try:
        await connection.request(pack("DEL", key))
    except RedisError as error:
        text = str(error)
        if text.startswith(_REFUSED_BUT_SERVING) or (in_cluster and text.startswith(("MOVED", "ASK"))):
            return
        if text.startswith("MOVED"):
            text = "it is a Redis Cluster, whose URL is redis+cluster://host:port"
        elif text.startswith("ERR unknown command"):
            text = f"{text}; the URL of a Sentinel is redis+sentinel://host:port/name"
        raise RedisUnavailableError(f"Redis does not serve: {text}", error_code(error)) from error


async def write_probe(connection: RedisConnection, key: str, *, in_cluster: bool) -> None:
    """Run a script with a write that changes nothing. Raises as `probe`, and RedisRefusesError where the server
    refuses such commands: it has no memory or no disk, or our user has no right for them."""
    try:
        await connection.request(pack("EVAL", _WRITE, 1, key))
    except RedisError as error:
        text = str(error)
        if in_cluster and text.startswith(("MOVED", "ASK", "TRYAGAIN")):
            return
        if is_not_serving(error):
            raise RedisUnavailableError(f"Redis does not serve: {text}", error_code(error)) from error
        raise RedisRefusesError(f"Redis refuses commands: {text}", error_code(error)) from error


class RedisNode:
    """Connects to the server that `locate` returns. `probe_key` is a key in one of its slots.

    `on_state` is called once with False when the server goes away and once with True when it is back. Meanwhile calls
    fail at once, except one every `retry_seconds` that tries to reconnect: a request does not wait for a server that is
    known to be down.
    """

    def __init__(
        self,
        address: RedisAddress,
        locate: Locate,
        *,
        connect_timeout: float,
        reply_timeout: float | None,
        retry_seconds: float,
        on_state: Callable[[bool], None],
        probe_key: Callable[[], str] = lambda: PROBE_KEY,
    ) -> None:
        self._address = address
        self._locate = locate
        self._connect_timeout = connect_timeout
        self._reply_timeout = reply_timeout
        self._retry_seconds = retry_seconds
        self._state = ReportedState(on_state)
        self._probe_key = probe_key
        self._connecting: asyncio.Task[RedisConnection] | None = None
        self._failures = 0
        """Attempts to connect that have failed since the server was last there."""
        self._retry_at = 0.0
        self._opened_at = 0.0
        self._failure = RedisUnavailableError("Redis is away")
        """Why the last attempt to connect failed."""
        self.connection: RedisConnection | None = None
        """The connection in use. It may be closed: then `connected` opens another."""

    async def connected(self) -> RedisConnection:
        """The connection, opened where there is none. Raises RedisUnavailableError."""
        connection = self.connection
        if connection is not None and connection.is_open:
            return connection
        loop = asyncio.get_running_loop()
        if self._failures and (self._connecting is not None or loop.time() < self._retry_at):
            raise RedisUnavailableError(str(self._failure), self._failure.code)
        is_first = self._connecting is None
        if self._connecting is None:
            self._connecting = loop.create_task(self._connect())
            self._connecting.add_done_callback(self._connect_done)
        if is_first:
            return await asyncio.shield(self._connecting)
        # A server that was there a moment ago is waited for as long as for its reply, and not longer.
        done, _ = await asyncio.wait({self._connecting}, timeout=self._reply_timeout)
        if not done:
            raise RedisUnavailableError("Redis is away")
        return done.pop().result()

    async def probe(self) -> None:
        """Raises RedisUnavailableError where the server cannot be reached or does not serve, RedisRefusesError where it
        refuses scripts that write."""
        connection = await self.connected()
        await write_probe(connection, self._probe_key(), in_cluster=self._address.kind == "cluster")

    def set_reply_timeout(self, seconds: float | None) -> None:
        """Bound replies by `seconds` from now on, those of the open connection included."""
        self._reply_timeout = seconds
        if self.connection is not None:
            self.connection.set_reply_timeout(seconds)

    async def close(self) -> None:
        """Close the connection. Calls in flight fail."""
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.gather(self._connecting, return_exceptions=True)
        if self.connection is not None:
            connection, self.connection = self.connection, None
            connection.abort()
            await asyncio.sleep(0)

    def retire(self) -> None:
        """Close the connection after the replies that are due. The next command opens another."""
        if self.connection is not None:
            connection, self.connection = self.connection, None
            connection.retire()

    def _connect_done(self, task: "asyncio.Task[RedisConnection]") -> None:
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
            code = error.code if isinstance(error, RedisUnavailableError) else error_code(error)
            reason = self._reason_of(error)
            if not self._failures or code != self._failure.code:  # logged once, not with each retry
                log.warning("Redis cannot be reached: %s", reason)
            self._failure = RedisUnavailableError(f"Redis is away: {reason}", code)
            self._failed()
            raise RedisUnavailableError(f"Redis cannot be reached: {reason}", code) from error
        except asyncio.CancelledError as error:  # by `close`: waiting callers are refused, not cancelled
            connection.abort()
            raise RedisUnavailableError("the connection to Redis was closed") from error
        self.connection = connection
        self._failures = 0
        self._opened_at = asyncio.get_running_loop().time()
        self._state.set(up=True)
        return connection

    def _reason_of(self, error: Exception) -> str:
        """In words, with what is mostly wrong where the server says nothing."""
        if isinstance(error, TimeoutError) and self._address.tls is not None:
            return "no reply in time (a server without TLS is redis://)"
        if isinstance(error, RedisSilentError) and self._address.tls is None:
            return "the server closed the connection before it replied (one with TLS is rediss://)"
        return str(error) or "no reply in time"

    async def _open(self, connection: RedisConnection) -> None:
        address, server = self._address, await self._locate()
        loop = asyncio.get_running_loop()
        if server.path is not None:
            await loop.create_unix_connection(lambda: connection, server.path)
        else:
            await loop.create_connection(lambda: connection, server.host, server.port, ssl=address.ssl_context())
        commands: list[tuple[Word, ...]] = []
        if auth := address.auth_command():
            commands.append(auth)
        if address.database:
            commands.append(("SELECT", address.database))
        for command in commands:
            await connection.request(pack(*command))
        await probe(connection, self._probe_key(), in_cluster=address.kind == "cluster")

    def _connection_lost(self, connection: RedisConnection) -> None:
        if connection is self.connection:
            self.connection = None
            if asyncio.get_running_loop().time() - self._opened_at < self._retry_seconds:
                self._failed()  # one that accepts connections and closes them is not there
            else:
                self._state.set(up=False)

    def _failed(self) -> None:
        self._failures += 1
        self._retry_at = asyncio.get_running_loop().time() + self._retry_seconds
        self._state.set(up=False)
