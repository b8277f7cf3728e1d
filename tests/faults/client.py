"""A strict client: sends one request and records everything that a caller can observe.

Every result is an `Answer`; failures of the platform do not raise. `outcome` sums it up in one value, against which
tests assert.
"""

import asyncio
import itertools
import json
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx

PATHS = {"chat": "/v1/chat/completions", "completions": "/v1/completions", "embeddings": "/v1/embeddings"}

_tags = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Shape:
    """A kind of request. Streams with and without usage are equally common."""

    operation: str
    stream: bool = False
    asks_usage: bool = False
    max_tokens: int = 12
    inputs: int = 1
    """Number of texts of an embeddings request."""

    @property
    def name(self) -> str:
        return f"{self.operation}-{'stream' if self.stream else 'plain'}"

    def body(self, model: str, tag: str) -> dict[str, Any]:
        words = f"Say something about the number {tag}."
        if self.operation == "embeddings":
            return {"model": model, "input": words, "user": tag}
        body: dict[str, Any] = {"model": model, "max_tokens": self.max_tokens, "ignore_eos": True, "user": tag}
        if self.operation == "chat":
            body["messages"] = [{"role": "user", "content": words}]
        else:
            body["prompt"] = words
        if self.stream:
            body["stream"] = True
        if self.asks_usage:
            body["stream_options"] = {"include_usage": True}
        return body


@dataclass(slots=True, eq=False)
class Answer:
    """What the caller observed. Times are from the monotonic clock."""

    shape: Shape
    model: str
    tag: str
    """The request's `user`, which identifies its ledger row even without a request id."""
    started: float
    ended: float = 0.0
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    pieces: int = 0
    """Events with text."""
    first: float | None = None
    last: float | None = None
    """Times of the first and the last text."""
    has_left: bool = False
    """The client disconnected."""
    text: str = ""
    ids: set[str] = field(default_factory=set)
    """Ids of a stream's events; a single one, even after resumes."""
    usage: dict[str, Any] | None = None
    finish: str | None = None
    is_done: bool = False
    error: dict[str, Any] | None = None
    """The OpenAI error object of a response or of an event."""
    wrong: str | None = None
    """A protocol violation: invalid JSON, an event after the end."""
    broke: str | None = None
    """The connection error."""
    hung: bool = False

    @property
    def seconds(self) -> float:
        return self.ended - self.started

    @property
    def outcome(self) -> str:
        """`ok`; `503 engine_unavailable`; `event engine_error`; `broken`: the connection failed; `left`: the client
        disconnected. Never permitted: `hung`, `cut` (an incomplete stream without an error), `wrong …`."""
        if self.wrong is not None:
            return f"wrong: {self.wrong}"
        if self.hung:
            return "hung"
        if self.broke is not None:
            return "broken"
        if self.error is not None:
            return f"event {self.error['code']}" if self.status == 200 else f"{self.status} {self.error['code']}"
        if self.has_left:
            return "left"
        if self.status != 200 or (self.shape.stream and not (self.is_done and self.finish)):
            return "cut"
        return "ok"

    def __repr__(self) -> str:
        return f"<{self.shape.name} {self.model} {self.tag}: {self.outcome} after {self.seconds:.2f} s, {self.broke}>"


async def ask(
    client: httpx.AsyncClient,
    shape: Shape,
    model: str,
    *,
    deadline: float = 10.0,
    begun: asyncio.Event | None = None,
    leaves_after: int | None = None,
    headers: Mapping[str, str] | None = None,
    **fields: Any,
) -> Answer:
    """Send a request and read the response to its end, or disconnect after `leaves_after` texts.

    `begun` is set by the first text; `fields` are added to the body. The client's base URL and headers select gateway
    and key.
    """
    tag = f"n{next(_tags)}"
    answer = Answer(shape, model, tag, time.monotonic())
    try:
        async with asyncio.timeout(deadline):
            request = client.stream(
                "POST", PATHS[shape.operation], json=shape.body(model, tag) | fields, headers=headers, timeout=None
            )
            async with request as response:
                await _read(response, answer, begun, leaves_after)
    except TimeoutError:
        answer.hung = True
    except httpx.HTTPError as error:
        answer.broke = f"{type(error).__name__}: {error}"
    except (AssertionError, LookupError, TypeError) as error:
        answer.wrong = f"not the shape of an answer: {type(error).__name__}: {error}"
    finally:
        answer.ended = time.monotonic()
        if begun is not None:
            begun.set()  # also on failure, so that waiters continue
    return answer


async def _read(
    response: httpx.Response, answer: Answer, begun: asyncio.Event | None, leaves_after: int | None
) -> None:
    answer.status, answer.headers = response.status_code, dict(response.headers)
    if response.headers.get("content-type", "").startswith("text/event-stream"):
        async for event in _events(answer, response):
            _take_event(answer, event)
            if answer.pieces and begun is not None:
                begun.set()
            if leaves_after is not None and answer.pieces >= leaves_after:
                answer.has_left = True
                return
    else:
        _take_whole(answer, await response.aread())


async def _events(answer: Answer, response: httpx.Response) -> AsyncIterator[bytes]:
    rest = b""
    async for piece in response.aiter_bytes():
        rest += piece
        while (end := rest.find(b"\n\n")) >= 0:
            yield rest[:end]
            rest = rest[end + 2 :]
    if rest:
        answer.wrong = f"half an event at the end: {rest[:200]!r}"


def _take_event(answer: Answer, event: bytes) -> None:
    if answer.is_done or answer.error is not None:
        answer.wrong = f"an event after the end: {event[:200]!r}"
        return
    data = event.removeprefix(b"data: ")
    if data == b"[DONE]":
        answer.is_done = True
        return
    chunk = _object(data)
    if chunk is None:
        answer.wrong = f"an event that is no JSON: {event[:200]!r}"
    elif chunk.get("error"):
        answer.error = chunk["error"]
    else:
        answer.ids.add(chunk["id"])
        answer.usage = chunk.get("usage") or answer.usage
        for choice in chunk["choices"]:
            said = choice["delta"].get("content") if "delta" in choice else choice["text"]
            answer.finish = choice["finish_reason"] or answer.finish
            if said:
                answer.text += said
                answer.pieces += 1
                answer.last = time.monotonic()
                answer.first = answer.first or answer.last


def _take_whole(answer: Answer, body: bytes) -> None:
    found = _object(body)
    if found is None:
        answer.wrong = f"a body that is no JSON object: {body[:200]!r}"
    elif answer.status != 200:
        answer.error = found["error"]
        assert set(found["error"]) == {"message", "type", "param", "code"}
    else:
        answer.usage = found.get("usage")
        if answer.shape.operation == "embeddings":
            assert len(found["data"]) == answer.shape.inputs
            return
        choice = found["choices"][0]
        answer.finish = choice["finish_reason"]
        answer.text = choice["message"]["content"] if "message" in choice else choice["text"]


def _object(data: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(data)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
