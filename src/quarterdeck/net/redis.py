"""Redis' wire: one connection on which all commands of one event-loop turn leave in one write.

Transport only: what the words mean is said by those who send them (`inference/admission`, `worker/loops`). The gateway
sends two commands a request; a client library costs more there than the rest of the gateway does, so this one is ours:
hiredis packs and parses, the loop does the rest. A blocking command (XREADGROUP BLOCK) needs a `Redis` of its own.
"""

import asyncio
import hashlib
import ssl
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, cast
from urllib.parse import parse_qs, unquote, urlsplit

import hiredis

Word = bytes | str | int | float


class RedisError(Exception):
    """Redis answered, with an error."""


class RedisUnavailableError(Exception):
    """No connection, or no answer in time. Whether the command was carried out is not known."""


class RedisSilentError(RedisUnavailableError):
    """The command was sent, and no answer came: a Redis that stands still may carry it out when it wakes up."""


class Receiver(Protocol):
    """Who is told a reply, at once: a future, or something lighter. It must not raise."""

    def done(self) -> bool: ...

    def set_result(self, reply: Any, /) -> None: ...

    def set_exception(self, error: Exception, /) -> None: ...


@dataclass(frozen=True)
class Script:
    """A Lua script, run by its SHA-1 and loaded where Redis doesn't know it (a restart, a fail-over)."""

    source: str
    sha: str = field(init=False)

    def __post_init__(self) -> None:
        # SHA-1 is Redis' name for a script, no safeguard.
        object.__setattr__(self, "sha", hashlib.sha1(self.source.encode(), usedforsecurity=False).hexdigest())

    def command(self, keys: Sequence[Word], args: Sequence[Word]) -> bytes:
        """What runs it, as it goes over the wire."""
        return _pack("EVALSHA", self.sha, len(keys), *keys, *args)

    def head(self, *, keys: int, args: int) -> bytes:
        """The same up to its first key: `packed` keys and arguments go on with it, as many as are said here."""
        return b"*%d\r\n" % (3 + keys + args) + packed("EVALSHA", self.sha, keys)


def is_unknown_script(error: BaseException) -> bool:
    """Whether Redis only doesn't know the script (any more): it was not run, and may be sent whole."""
    return isinstance(error, RedisError) and str(error).startswith("NOSCRIPT")


@dataclass(frozen=True)
class Address:
    """Where a Redis listens and how to enter it. The password is not part of the repr."""

    path: str | None
    host: str
    port: int
    tls: bool
    username: str | None
    password: str | None = field(repr=False)
    database: int = 0

    @classmethod
    def parse(cls, url: str) -> "Address":
        """Read redis://[[user]:password@]host[:port][/db], rediss://… or unix:///path[?db=N]. Raises ValueError."""
        parts = urlsplit(url)
        if parts.scheme not in ("redis", "rediss", "unix"):
            raise ValueError("a Redis URL begins with redis://, rediss:// or unix://")
        if parts.scheme == "unix":
            text = parse_qs(parts.query).get("db", ["0"])[0]
            path: str | None = unquote(parts.netloc.rpartition("@")[2] + parts.path)
        else:
            path, text = None, parts.path.strip("/") or "0"
        if not text.isdecimal():
            raise ValueError("the database of a Redis URL is a number")
        password = unquote(parts.password) if parts.password else None
        username = unquote(parts.username) if parts.username else None
        tls = parts.scheme == "rediss"
        try:
            port = parts.port or 6379
        except ValueError:  # it would be repeated, and be a part of a password that holds a slash
            raise ValueError(
                "the port of a Redis URL is a number; a password's / # and @ are percent-encoded"
            ) from None
        return cls(path, parts.hostname or "127.0.0.1", port, tls, username, password, int(text))


def packed(*words: Word) -> bytes:
    """Words as they stand in a command, for one who puts it together himself: what is the same each time, once."""
    command = _pack(*words)
    return command[command.index(b"\n") + 1 :]


def _pack(*words: Word) -> bytes:
    command: bytes = hiredis.pack_command(words)  # type: ignore[arg-type]  # its stub means a tuple of one; takes any
    return command


class _Connection(asyncio.Protocol):
    """Bytes to replies, in the order in which the commands were sent."""

    def __init__(self, on_lost: Callable[["_Connection"], None], reply_timeout: float | None) -> None:
        self._on_lost = on_lost
        self._reply_timeout = reply_timeout
        self._heard = 0.0
        self._watch: asyncio.TimerHandle | None = None
        self._reader = hiredis.Reader()
        self._waiting: deque[Receiver] = deque()
        self._outgoing: list[bytes] = []
        self._gathering: deque[Callable[[], None]] = deque()
        self._is_flush_due = False
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self.is_open = False
        """Commands can be sent. Asked with each of them, so it is no question to the transport."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass of it
        self.is_open = True

    def eof_received(self) -> None:
        self.is_open = False  # the transport closes itself now

    def ask(self, command: bytes) -> asyncio.Future[Any]:
        """Raises RedisUnavailableError where the connection is gone already: nobody would ever answer."""
        future: asyncio.Future[Any] = self._loop.create_future()
        self.send(command, future)
        return future

    def send(self, command: bytes, receiver: Receiver) -> None:
        """The same for one who has a receiver."""
        if self._transport is None:
            raise RedisUnavailableError("the connection to Redis was lost")
        if not self._waiting:
            self._heard = self._loop.time()
            if self._watch is None and self._reply_timeout is not None:
                self._watch = self._loop.call_later(self._reply_timeout, self._check)
        self._waiting.append(receiver)
        self._outgoing.append(command)
        if not self._is_flush_due:
            self._flush_soon()

    def gather(self, gather: Callable[[], None], *, first: bool) -> None:
        """Call it when this turn's commands leave, before they do. Once."""
        if first:
            self._gathering.appendleft(gather)
        else:
            self._gathering.append(gather)
        if not self._is_flush_due:
            self._flush_soon()

    def _flush_soon(self) -> None:
        self._is_flush_due = True
        self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        while self._gathering:
            self._gathering.popleft()()
        self._is_flush_due = False
        if self._transport is not None and not self._transport.is_closing():  # uvloop's would raise
            self._transport.write(b"".join(self._outgoing))
        self._outgoing.clear()

    def _check(self) -> None:
        """One timer for all calls under way: a Redis that is silent for `reply_timeout` is as good as gone."""
        self._watch = None
        if not self._waiting or self._reply_timeout is None:
            return
        left = self._heard + self._reply_timeout - self._loop.time()
        if left > 0:
            self._watch = self._loop.call_later(left, self._check)
        else:
            # If it was this process that stood still, the answers are there and will be read in this very turn of the
            # loop: timers may come before sockets.
            self._watch = self._loop.call_later(0.001, self._give_up, self._heard)

    def _give_up(self, heard: float) -> None:
        self._watch = None
        if self._heard == heard:
            self.abort()
        elif self._waiting:
            self._check()

    def data_received(self, data: bytes) -> None:
        self._heard = self._loop.time()
        self._reader.feed(data)
        try:
            while (reply := self._reader.gets()) is not False:
                if not self._waiting:  # words that nobody asked for: from here on no reply would meet its question
                    self.abort()
                    return
                receiver = self._waiting.popleft()
                if receiver.done():  # its caller gave up waiting; the reply still had to be taken off the wire
                    continue
                if isinstance(reply, hiredis.ReplyError):
                    receiver.set_exception(RedisError(str(reply)))
                else:
                    receiver.set_result(reply)
        except hiredis.ProtocolError:
            self.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport, self.is_open = None, False
        if self._watch is not None:
            self._watch.cancel()
        waiting, self._waiting = self._waiting, deque()
        for receiver in waiting:
            if not receiver.done():
                receiver.set_exception(RedisSilentError("the connection to Redis was lost"))
                if isinstance(receiver, asyncio.Future):
                    receiver.exception()  # a caller that is gone must not leave "exception was never retrieved" behind
        self._on_lost(self)

    def abort(self) -> None:
        self.is_open = False
        if self._transport is not None:
            self._transport.abort()


class Redis:
    """A lazily opened, self-healing connection.

    `reply_timeout` bounds every call, in seconds; None for blocking commands. `on_state` is told once when Redis goes
    away (False) and once when it is back (True). While it is away, calls fail at once except one every `retry_seconds`
    that tries again: a dead Redis costs a request nothing but the knowledge, however long a try takes.
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
        self._address = Address.parse(url)
        self._connect_timeout = connect_timeout
        self._reply_timeout = reply_timeout
        self._retry_seconds = retry_seconds
        self._on_state = on_state
        self._connection: _Connection | None = None
        self._connecting: asyncio.Task[_Connection] | None = None
        self._retry_at = 0.0
        self._is_up: bool | None = None

    @property
    def is_up(self) -> bool:
        """Whether the last thing heard of Redis was good. True before the first call."""
        return self._is_up is not False

    async def call(self, *words: Word) -> Any:
        """One command; strings come back as bytes.

        Raises RedisError, or RedisUnavailableError where there is no connection or no answer in time.
        """
        return await self._send(_pack(*words))

    async def run(self, script: Script, keys: Sequence[Word], args: Sequence[Word]) -> Any:
        """A script by its SHA-1; where Redis doesn't know it, it is loaded and run. Raises as `call`."""
        return await self.execute(script, script.command(keys, args))

    async def execute(self, script: Script, command: bytes) -> Any:
        """The same for a command that is packed already."""
        connection = self._connection
        if connection is None or not connection.is_open:
            connection = await self._connected()
        try:
            return await connection.ask(command)
        except RedisError as error:
            if not is_unknown_script(error):
                raise
        await self.call("SCRIPT", "LOAD", script.source)
        return await self._send(command)

    def send(self, command: bytes, receiver: Receiver) -> bool:
        """As `execute`, without a coroutine to wait in. False: no connection is open, and `execute` must be asked.

        The reply may be the RedisError that `is_unknown_script` knows; `execute` helps then as well.
        """
        connection = self._connection
        if connection is None or not connection.is_open:
            return False
        connection.send(command, receiver)
        return True

    def gather(self, gather: Callable[[], None], *, first: bool = False) -> None:
        """Call it at the end of this turn of the loop, so that what has come until then is one command. Once; `first`:
        before others, as somebody waits for its reply."""
        connection = self._connection
        if connection is not None and connection.is_open:
            connection.gather(gather, first=first)
        else:
            asyncio.get_running_loop().call_soon(gather)

    async def close(self) -> None:
        """Hang up. Calls under way fail."""
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.gather(self._connecting, return_exceptions=True)
        if self._connection is not None:
            connection, self._connection = self._connection, None
            connection.abort()
            await asyncio.sleep(0)

    async def _send(self, packed: bytes) -> Any:
        connection = self._connection
        if connection is None or not connection.is_open:
            connection = await self._connected()
        return await connection.ask(packed)

    async def _connected(self) -> _Connection:
        loop = asyncio.get_running_loop()
        if self._is_up is False and (self._connecting is not None or loop.time() < self._retry_at):
            raise RedisUnavailableError("Redis is away")
        if self._connecting is None:
            self._connecting = loop.create_task(self._connect())
            self._connecting.add_done_callback(self._connect_done)
        return await asyncio.shield(self._connecting)

    def _connect_done(self, task: asyncio.Task[_Connection]) -> None:
        self._connecting = None
        if not task.cancelled():
            task.exception()  # whoever waits for it has it; if all gave up, it is not an unhandled one

    async def _connect(self) -> _Connection:
        address = self._address
        loop = asyncio.get_running_loop()
        connection = _Connection(self._lost, self._reply_timeout)
        try:
            async with asyncio.timeout(self._connect_timeout):
                if address.path is not None:
                    await loop.create_unix_connection(lambda: connection, address.path)
                else:
                    context = ssl.create_default_context() if address.tls else None
                    await loop.create_connection(lambda: connection, address.host, address.port, ssl=context)
                if address.password is not None:
                    words = ("AUTH", *([address.username] if address.username else []), address.password)
                    await connection.ask(_pack(*words))
                if address.database:
                    await connection.ask(_pack("SELECT", address.database))
                # A Redis that loads its file accepts connections and answers LOADING to all: it is not back yet.
                await connection.ask(_pack("PING"))
        except (OSError, UnicodeError, TimeoutError, RedisError, RedisUnavailableError) as error:
            connection.abort()
            self._mark(up=False)
            raise RedisUnavailableError(f"Redis can't be reached: {str(error) or 'no answer in time'}") from error
        except asyncio.CancelledError as error:  # by `close`: those who wait for us are not cancelled, only refused
            connection.abort()
            raise RedisUnavailableError("the connection to Redis was closed") from error
        self._connection = connection
        self._mark(up=True)
        return connection

    def _lost(self, connection: _Connection) -> None:
        if connection is self._connection:
            self._connection = None
            self._mark(up=False)

    def _mark(self, *, up: bool) -> None:
        if not up:
            self._retry_at = asyncio.get_running_loop().time() + self._retry_seconds
        if self._is_up is not up:
            is_news = self._is_up is not None or not up
            self._is_up = up
            if is_news:
                self._on_state(up)
