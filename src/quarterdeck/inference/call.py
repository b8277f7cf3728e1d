"""What goes into the pipeline and what comes out: no ASGI, no socket.

A door makes a `Head` of its request and sends a `Reply` back as its protocol wants it.
"""

from collections.abc import AsyncIterable
from enum import StrEnum
from typing import Protocol, Self

import msgspec

from quarterdeck.accounting.principal import Principal


class Operation(StrEnum):
    """What is asked of a model; the value is the route's path at the engine and at the gateway."""

    CHAT = "/v1/chat/completions"
    COMPLETIONS = "/v1/completions"
    EMBEDDINGS = "/v1/embeddings"
    TOKENIZE = "/tokenize"
    DETOKENIZE = "/detokenize"
    SCORE = "/v1/score"

    word: str
    """The operation's name in records and metrics: chat, completions, embeddings, …"""
    path: str
    """The value as a plain string: an enum's own `value` and `name` cost ten times as much, and both are asked for with
    each request."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.word = self._name_.lower()


FREE = (Operation.TOKENIZE, Operation.DETOKENIZE)
"""No model runs for them: they have no usage, so none is looked for."""


CLIENT_CLOSED_REQUEST = 499
"""nginx's status for a client that hung up before its answer began. It is recorded and logged, never sent."""


class Head(msgspec.Struct, frozen=True):  # a frozen dataclass takes eight times as long to make
    """What is known of a request before its body is read."""

    request_id: str
    operation: Operation
    principal: Principal
    started: float
    """Unix seconds at which the request came in."""
    headers: tuple[tuple[bytes, bytes], ...] = ()
    """Those of the client's headers that an engine may see (an allow-list of the door)."""
    cache_control: bytes = b""
    """The client's `cache-control`: whether an answer may be kept or an old one given."""

    @property
    def engine_headers(self) -> tuple[tuple[bytes, bytes], ...]:
        """What an engine is sent. vLLM takes x-request-id for its logs and ids, so one id is found in all of them."""
        own = (b"x-request-id", self.request_id.encode())
        return (own, *self.headers) if self.headers else (own,)


class Sink(Protocol):
    """Where a stream's pieces can go without anybody waiting in between."""

    def put(self, piece: bytes) -> bool:
        """Take a piece. False: that is enough, until `room`."""
        ...

    async def room(self) -> None:
        """Wait until there is room again."""
        ...


async def pour(pieces: AsyncIterable[bytes], sink: Sink) -> None:
    """Put all pieces into the sink, as fast as there is room."""
    async for piece in pieces:
        if not sink.put(piece):
            await sink.room()


class Stream(Protocol):
    """Pieces of whole SSE events. Raises nothing of the engine's: a failure after the first event is an event already.

    Whoever holds one must close it, read to its end or not: closing stops the engine and completes the record.
    """

    async def pump(self, sink: Sink) -> None:
        """Put all pieces into the sink, each as soon as it has come: no task is woken for it."""
        ...

    def __aiter__(self) -> Self: ...

    async def __anext__(self) -> bytes: ...

    async def aclose(self) -> None:
        """Repeatable."""
        ...


class Reply(msgspec.Struct):
    """An answer: whole (`body`) or under way (`stream`)."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes = b""
    stream: Stream | None = None
