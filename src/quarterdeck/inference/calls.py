"""What goes into the pipeline and what comes out: no ASGI, no socket.

A door makes a `Head` of its request and sends a `Reply` back as its protocol wants it.
"""

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from enum import StrEnum

from quarterdeck.inference.principal import Principal


class Operation(StrEnum):
    """What is asked of a model; the value is the route's path at the engine and at the gateway."""

    CHAT = "/v1/chat/completions"
    COMPLETIONS = "/v1/completions"
    EMBEDDINGS = "/v1/embeddings"
    TOKENIZE = "/tokenize"
    DETOKENIZE = "/detokenize"
    SCORE = "/v1/score"

    @property
    def word(self) -> str:
        """The operation's name in records and metrics: chat, completions, embeddings, …"""
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class Head:
    """What is known of a request before its body is read."""

    request_id: str
    operation: Operation
    principal: Principal
    started: float
    """Unix seconds at which the request came in."""
    headers: tuple[tuple[bytes, bytes], ...] = ()
    """Those of the client's headers that an engine may see (an allow-list of the door)."""


@dataclass(slots=True)
class Reply:
    """An answer: whole (`body`) or under way (`stream`).

    `stream` yields pieces of whole SSE events. It raises nothing: a failure after the first event is an event already.
    Whoever holds a streaming reply must close the generator (`aclose`), read to its end or not: closing it
    cancels what is under way at the engine and completes the record.
    """

    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes = b""
    stream: AsyncGenerator[bytes, None] | None = None
