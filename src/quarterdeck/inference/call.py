"""What goes into the pipeline and what comes out: no ASGI, no socket.

The gateway makes a `Head` of an HTTP request and sends the `Reply`. A running request is a `call_state.Call`.
"""

from collections.abc import Callable
from enum import StrEnum
from typing import Protocol

import msgspec

from quarterdeck.accounting.principal import Principal
from quarterdeck.protocol.trace_context import TraceContext
from quarterdeck.telemetry.traces.span_ids import FIRST_ATTEMPT, span_id, span_seed

CLIENT_CLOSED_REQUEST = 499
"""nginx's status for a client that hung up before its answer began. It is recorded and logged, never sent."""

Headers = tuple[tuple[bytes, bytes], ...]
"""Names in lower case."""


class Operation(StrEnum):
    """An operation of a model. The value is the route's path, at the engine and at the gateway."""

    CHAT = "/v1/chat/completions"
    COMPLETIONS = "/v1/completions"
    EMBEDDINGS = "/v1/embeddings"
    TOKENIZE = "/tokenize"
    DETOKENIZE = "/detokenize"
    SCORE = "/v1/score"
    CLASSIFY = "/classify"
    AUDIO_TRANSCRIPTIONS = "/v1/audio/transcriptions"
    AUDIO_TRANSLATIONS = "/v1/audio/translations"
    AUDIO_SPEECH = "/v1/audio/speech"
    IMAGES_GENERATIONS = "/v1/images/generations"
    IMAGES_EDITS = "/v1/images/edits"
    IMAGES_VARIATIONS = "/v1/images/variations"

    word: str
    """The operation's name in records and metrics: chat, completions, embeddings, …"""
    path: str
    """The value as a plain string: an enum's own `value` and `name` cost ten times as much, and each request reads
    both."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.word = self._name_.lower()


MEDIA = (
    *(Operation.AUDIO_TRANSCRIPTIONS, Operation.AUDIO_TRANSLATIONS, Operation.AUDIO_SPEECH),
    *(Operation.IMAGES_GENERATIONS, Operation.IMAGES_EDITS, Operation.IMAGES_VARIATIONS),
)
"""Operations of audio and images, which `inference/media_calls` serves."""
FREE = (Operation.TOKENIZE, Operation.DETOKENIZE)
"""Operations that run no model and have no usage."""


class Head(msgspec.Struct, frozen=True):  # a frozen dataclass takes eight times as long to make
    """A request before its body is read."""

    request_id: str
    operation: Operation
    principal: Principal
    started: float
    """Arrival, Unix seconds."""
    headers: Headers = ()
    """The client's headers that are forwarded to the engine (`gateway.forward_headers`)."""
    cache_control: bytes = b""
    """The client's `cache-control`: whether the answer may be cached or come from the cache."""
    trace: TraceContext | None = None
    """What engines are told of the trace. None: nothing."""
    parent: str | None = None
    """The response that the request is a step of. None: the client sent it itself."""
    repeats: Callable[[], bool] | None = None
    """Of a job's request: asked when it is cut off, whether it is sent again with the same id. None: it is not."""

    def engine_headers(self) -> Headers:
        """Headers for the engine. vLLM uses x-request-id as its own id, so one id finds a request in all logs."""
        own = (b"x-request-id", self.request_id.encode())
        return (own, *self.headers) if self.headers else (own,)

    def traced_headers(self, attempt: int) -> Headers:
        """Headers for an engine that takes part in traces: its spans are children of this attempt's."""
        if (trace := self.trace) is None:
            return self.engine_headers()
        span = span_id(span_seed(self.request_id), FIRST_ATTEMPT + attempt).hex()
        parent = trace.parent_of(self.request_id.removeprefix("req_"), span)
        names = {name for name, _ in parent}
        return (*[header for header in self.engine_headers() if header[0] not in names], *parent)


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
    whether the stream was read to its end or not: it stops the engine and completes the record. One that can send an
    error event has the APIError in `error` afterwards.
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
    headers: Headers
    body: bytes = b""
    stream: Stream | None = None
    on_end: Callable[[], None] | None = None
    """Of a large complete answer: called once the client has taken it, or will not. The key's slot is held until
    then."""

    async def discard(self) -> None:
        """End an answer that no client takes."""
        if self.stream is not None:
            await self.stream.aclose()
        if self.on_end is not None:
            self.on_end()
