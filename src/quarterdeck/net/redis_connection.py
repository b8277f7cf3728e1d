"""One connection to Redis: commands in, replies out in the same order.

All commands of one turn of the event loop leave in one write. hiredis packs commands and parses replies.
"""

import asyncio
import re
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol, cast

import hiredis

Word = bytes | str | int | float


class RedisError(Exception):
    """Redis replied with an error."""


class RedisUnavailableError(Exception):
    """There is no connection, or no reply came in time. The command may or may not have been executed."""

    def __init__(self, message: str, code: str = "") -> None:
        """`code`: the first word of the server's error, such as WRONGPASS. Empty: it did not reply with one."""
        super().__init__(message)
        self.code = code


class RedisRefusesError(RedisUnavailableError):
    """The server is there and refuses our commands: no memory, no disk, no right for them."""


class RedisSilentError(RedisUnavailableError):
    """The command was sent and no reply came: a stalled Redis may still execute it when it resumes."""


_NOT_SERVING = ("READONLY ", "LOADING ", "MASTERDOWN ", "CLUSTERDOWN ", "NOREPLICAS ", "UNBLOCKED ", "BUSY ")
"""First words of errors by which a server says that it is not the one to ask: a replica by now, not loaded yet, cut off
from its primary or its replicas, or busy with a script. With the space: BUSYGROUP is another error."""
_CODE = re.compile(r"[A-Z]{2,20}(?= |$)")
_WRAPPED_CODE = re.compile(r" -([A-Z]{2,20}) ")


def is_not_serving(error: BaseException) -> bool:
    """Whether a server replied that another one serves, or none: the command was not run and may be sent again."""
    if not isinstance(error, RedisError):
        return False
    text = str(error)
    # Redis 6 wraps the error of a command inside of a script: `ERR Error running script …: -READONLY You can't …`.
    return text.startswith(_NOT_SERVING) or any(f" -{word}" in text for word in _NOT_SERVING)


def error_code(error: BaseException) -> str:
    """The first word of a server's error: `NOAUTH`; of one inside of a script as well. Empty where it has
    none but the general ERR."""
    if not isinstance(error, RedisError):
        return ""
    text = str(error)
    if (wrapped := _WRAPPED_CODE.search(text)) is not None:
        return wrapped[1]
    found = _CODE.match(text)
    return found[0] if found and found[0] != "ERR" else ""


class Receiver(Protocol):
    """Takes the reply to one command: a future, or something lighter. Its methods must not raise."""

    def done(self) -> bool: ...

    def set_result(self, reply: Any, /) -> None: ...

    def set_exception(self, error: Exception, /) -> None: ...


def pack(*words: Word) -> bytes:
    """A whole command in the wire format."""
    command: bytes = hiredis.pack_command(words)  # type: ignore[arg-type]  # its stub means a tuple of one; takes any
    return command


class _Lengths(dict[int, bytes]):
    def __missing__(self, size: int) -> bytes:
        return b"$%d\r\n" % size


LENGTHS = _Lengths({size: b"$%d\r\n" % size for size in range(2048)})
"""What stands before a word of so many bytes, for words that are packed by hand; a line break follows the word."""


def pack_arguments(*words: Word) -> bytes:
    """Arguments in the wire format, without the command's array header: for commands with a precomputed part."""
    command = pack(*words)
    return command[command.index(b"\n") + 1 :]


class RedisConnection(asyncio.Protocol):
    """An asyncio protocol. `reply_timeout`, in seconds, bounds the silence while replies are due; None: no bound.

    `on_lost` is called once: when the connection is closed from either side, or when the server has replied that it is
    not the one to ask (`is_not_serving`). Then no new commands are sent, and the connection is closed after the replies
    that are due.
    """

    def __init__(self, on_lost: Callable[["RedisConnection"], None], reply_timeout: float | None) -> None:
        self._on_lost = on_lost
        self._reply_timeout = reply_timeout
        self._last_read = 0.0
        self._timeout_timer: asyncio.TimerHandle | None = None
        self._reader = hiredis.Reader()
        self._receivers: deque[Receiver] = deque()
        self._outgoing: list[bytes] = []
        self._before_flush: deque[Callable[[], None]] = deque()
        self._is_flush_due = False
        self._is_lost = False
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self.is_open = False
        """Whether commands can be sent. An attribute, as every command asks for it."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass of it
        self.is_open = True

    def eof_received(self) -> None:
        self.is_open = False  # the transport closes itself next

    def request(self, command: bytes) -> asyncio.Future[Any]:
        """Send a packed command; the future has its reply. Raises RedisUnavailableError if the connection is closed."""
        future: asyncio.Future[Any] = self._loop.create_future()
        self.send(command, future)
        return future

    def send(self, command: bytes, receiver: Receiver) -> None:
        """Send a packed command; `receiver` takes its reply. Raises as `request`."""
        if self._transport is None:
            raise RedisUnavailableError("the connection to Redis was lost")
        if not self._receivers:
            self._last_read = self._loop.time()
            if self._timeout_timer is None and self._reply_timeout is not None:
                self._timeout_timer = self._loop.call_later(self._reply_timeout, self._check_timeout)
        self._receivers.append(receiver)
        self._outgoing.append(command)
        if not self._is_flush_due:
            self._schedule_flush()

    def set_reply_timeout(self, seconds: float | None) -> None:
        """Bound the silence by `seconds` from now on; replies that are due have that long again."""
        self._reply_timeout = seconds
        if self._timeout_timer is not None:
            self._timeout_timer.cancel()
            self._timeout_timer = None
        if self._receivers and seconds is not None:
            self._last_read = self._loop.time()
            self._timeout_timer = self._loop.call_later(seconds, self._check_timeout)

    def call_before_flush(self, callback: Callable[[], None], *, first: bool) -> None:
        """Call `callback` once before this turn's commands are written, ahead of other callbacks if `first`."""
        if first:
            self._before_flush.appendleft(callback)
        else:
            self._before_flush.append(callback)
        if not self._is_flush_due:
            self._schedule_flush()

    def _schedule_flush(self) -> None:
        self._is_flush_due = True
        self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        while self._before_flush:
            self._before_flush.popleft()()
        self._is_flush_due = False
        if self._transport is not None and not self._transport.is_closing():  # uvloop's would raise
            self._transport.write(b"".join(self._outgoing))
        self._outgoing.clear()

    def _check_timeout(self) -> None:
        """One timer for all commands in flight: the connection is given up after `reply_timeout` without a byte."""
        self._timeout_timer = None
        if not self._receivers or self._reply_timeout is None:
            return
        left = self._last_read + self._reply_timeout - self._loop.time()
        if left > 0:
            self._timeout_timer = self._loop.call_later(left, self._check_timeout)
        else:
            # If this process was stalled, the replies are in the socket and are read in this turn of the loop: timers
            # may run before sockets.
            self._timeout_timer = self._loop.call_later(0.001, self._abort_if_silent, self._last_read)

    def _abort_if_silent(self, last_read: float) -> None:
        self._timeout_timer = None
        if self._last_read == last_read:
            self.abort()
        elif self._receivers:
            self._check_timeout()

    def data_received(self, data: bytes) -> None:
        self._last_read = self._loop.time()
        self._reader.feed(data)
        try:
            while (reply := self._reader.gets()) is not False:
                if not self._receivers:  # an unsolicited reply: from here on replies would meet the wrong commands
                    self.abort()
                    return
                receiver = self._receivers.popleft()
                if receiver.done():  # the caller stopped waiting
                    continue
                if isinstance(reply, hiredis.ReplyError):
                    error = RedisError(str(reply))
                    if is_not_serving(error):
                        self.retire()
                    receiver.set_exception(error)
                else:
                    receiver.set_result(reply)
        except hiredis.ProtocolError:
            self.abort()
        if self._is_lost:
            self._close_if_answered()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport, self.is_open = None, False
        if self._timeout_timer is not None:
            self._timeout_timer.cancel()
        receivers, self._receivers = self._receivers, deque()
        for receiver in receivers:
            if not receiver.done():
                receiver.set_exception(RedisSilentError("the connection to Redis was lost"))
                if isinstance(receiver, asyncio.Future):
                    receiver.exception()  # mark it retrieved: its caller may be cancelled
        self._lose()

    def retire(self) -> None:
        """Send no new commands, and close the connection after the replies that are due."""
        self.is_open = False
        self._lose()
        self._loop.call_soon(self._close_if_answered)

    def _close_if_answered(self) -> None:
        if not self._receivers:
            self.abort()

    def _lose(self) -> None:
        if not self._is_lost:
            self._is_lost = True
            self._on_lost(self)

    def abort(self) -> None:
        """Close at once. Commands in flight fail with RedisSilentError."""
        self.is_open = False
        if self._transport is not None:
            self._transport.abort()
