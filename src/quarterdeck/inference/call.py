"""What goes into the pipeline and what comes out: no ASGI, no socket.

A door makes a `Head` of its request and sends a `Reply` back as its protocol wants it.
"""

from enum import StrEnum
from typing import Protocol

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
    """Destination of a stream's pieces. `put` is synchronous, so that no task has to wake up for a piece."""

    def put(self, piece: bytes) -> bool:
        """Accept a piece. False: the sink is full, and `room` must be awaited before the next `put` or the end."""
        ...

    async def room(self) -> None:
        """Wait until the sink accepts pieces again."""
        ...


class Stream(Protocol):
    """A streamed answer: pieces of whole SSE events.

    Engine errors are not raised: after the first event a failure is an SSE error event. The owner must call `aclose`,
    whether the stream was read to its end or not: it stops the engine and completes the record.
    """

    async def pump(self, sink: Sink) -> None:
        """Put each piece into the sink as soon as it arrives. Returns at the end of the stream."""
        ...

    async def aclose(self) -> None:
        """Close the stream. Idempotent."""
        ...


class Reply(msgspec.Struct):
    """An answer: complete (`body`) or streamed (`stream`)."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes = b""
    stream: Stream | None = None
