"""Stores the chat completions of requests with `store: true`, and passes all others on.

The answer's id is the object's, so it does not come from the cache: a cached answer has another request's.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import msgspec

from quarterdeck.errors import APIError
from quarterdeck.inference.call import Head, Reply, Sink, Stream
from quarterdeck.inference.capture.assembly import StreamAssembly
from quarterdeck.inference.metering.caller_trace import session_of, user_of
from quarterdeck.net.tasks import Spawn
from quarterdeck.protocol import requests, sse
from quarterdeck.resources.responses.requests import check_metadata
from quarterdeck.resources.responses.service import owner_of
from quarterdeck.store.chat_completions import ChatCompletionStore, NewChatCompletion
from quarterdeck.store.database import DatabaseUnavailableError
from quarterdeck.store.ownership import Origin, storable

log = logging.getLogger(__name__)

MAX_CHARACTERS = 8 * 1024 * 1024
"""Kept of a stream's texts."""
WANTED = b'"store"'
"""In every body that asks to be stored."""


class StoreRequest(msgspec.Struct):
    store: bool | None = None
    metadata: dict[str, Any] | None = None
    messages: list[Any] | None = None
    user: str | None = None
    safety_identifier: str | None = None


class Pipeline(Protocol):
    """What is needed of `inference.pipeline.Pipeline`."""

    async def call(self, head: Head, body: bytes) -> Reply: ...


class StoredChats:
    """A pipeline that stores what is to be stored. Called only for bodies with WANTED in them."""

    def __init__(
        self, pipeline: Pipeline, store: ChatCompletionStore, spawn: Spawn, *, wall: Callable[[], float] = time.time
    ) -> None:
        self._pipeline = pipeline
        self._store = store
        self._spawn = spawn
        self._wall = wall

    async def call(self, head: Head, body: bytes) -> Reply:
        """Raises APIError until the answer begins."""
        body = body.removeprefix(requests.BOM)
        members = requests.members(body)
        if bytes(members.get("store", b"")) != b"true":
            return await self._pipeline.call(head, body)
        asked: StoreRequest = requests.decode(body, StoreRequest)
        check_metadata(asked.metadata)
        await self._store.check()
        # Stored here, and not at a hosted endpoint as well.
        del members["store"]
        cache_control = head.cache_control + b", no-cache" if head.cache_control else b"no-cache"
        head = msgspec.structs.replace(head, cache_control=cache_control)
        reply = await self._pipeline.call(head, requests.with_members(members, {}))

        async def save(answer: dict[str, Any]) -> None:
            await self._save(head, asked, answer)

        if reply.stream is not None:
            stream = StoredStream(reply.stream, save, self._spawn)
            return msgspec.structs.replace(reply, stream=stream)
        if (whole := sse.parse_json(reply.body)) is not None and _is_storable(whole):
            await save(whole)
        return reply

    async def _save(self, head: Head, asked: StoreRequest, answer: dict[str, Any]) -> None:
        """While the database is away, the client gets its answer, and it is not stored."""
        metadata = asked.metadata or {}
        user = user_of(metadata) or asked.safety_identifier or asked.user
        new = NewChatCompletion(
            answer,
            asked.messages or [],
            owner_of(head.principal),
            Origin(head.request_id, storable(user), storable(session_of(metadata))),
            self._wall(),
            metadata,
        )
        try:
            if not await self._store.create(new):
                log.warning("chat completion was not stored: its id is taken", extra={"request_id": head.request_id})
        except DatabaseUnavailableError as error:
            log.warning("chat completion was not stored: %s", error, extra={"request_id": head.request_id})


class StoredStream:
    """A `Stream` whose answer is stored before the client sees its end. One that did not come to its end is not stored,
    as at OpenAI."""

    def __init__(self, stream: Stream, save: Callable[[dict[str, Any]], Awaitable[None]], spawn: Spawn) -> None:
        self._stream = stream
        self._save = save
        self._spawn = spawn

    @property
    def error(self) -> APIError | None:
        return getattr(self._stream, "error", None)

    async def pump(self, sink: Sink) -> None:
        pieces = _Pieces(sink)
        await self._stream.pump(pieces)
        if not pieces.is_done:
            return
        answer = pieces.answer()
        if _is_storable(answer):
            saved = asyncio.Event()  # in a task of its own: a client that leaves now must not leave it half stored
            self._spawn(self._run(answer, saved))
            await saved.wait()
        if not sink.put(sse.DONE):
            await sink.room()

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def _run(self, answer: dict[str, Any], is_done: asyncio.Event) -> None:
        try:
            await self._save(answer)
        finally:
            is_done.set()


class _Pieces:
    """Passes events on, all but `[DONE]`, and assembles the answer."""

    def __init__(self, sink: Sink) -> None:
        self.is_done = False
        self._sink = sink
        self._assembly = StreamAssembly(MAX_CHARACTERS)
        self._head: dict[str, Any] = {}
        self._usage: Any = None

    def put(self, piece: bytes) -> bool:
        if piece.endswith(sse.DONE):
            self.is_done = True
            piece = piece[: -len(sse.DONE)]
        if not piece:
            return True
        self._assembly.add(piece)
        if not self._head and (first := sse.parse(sse.first_object(piece))) is not None:
            self._head = first
        if sse.usage_before(piece, len(piece)) >= 0:
            for event in sse.events(piece):
                if (chunk := sse.parse(event)) is not None and chunk.get("usage"):
                    self._usage = chunk["usage"]
        return self._sink.put(piece)

    async def room(self) -> None:
        await self._sink.room()

    def answer(self) -> dict[str, Any]:
        names = ("id", "created", "model", "system_fingerprint", "service_tier")
        made = {name: self._head[name] for name in names if self._head.get(name) is not None}
        choices = [_complete(choice) for choice in self._assembly.choices()]
        return {**made, "object": "chat.completion", "choices": choices, "usage": self._usage}


def _complete(choice: dict[str, Any]) -> dict[str, Any]:
    """With the members that OpenAI's whole answers always have."""
    message = {"role": "assistant", "content": None, "refusal": None, **choice.get("message", {})}
    return {"finish_reason": "stop", "logprobs": None, **choice, "message": message}


def _is_storable(answer: dict[str, Any]) -> bool:
    return isinstance(answer.get("id"), str) and isinstance(answer.get("model"), str)


def store_messages(messages: list[dict[str, Any]], id: str) -> list[dict[str, Any]]:
    """The messages of a stored completion's request, as they are listed. Pure."""
    found = []
    for index, message in enumerate(messages):
        shown = {"refusal": None, **message, "id": f"{id}-{index}", "content_parts": None}
        if isinstance(message.get("content"), list):
            shown |= {"content": None, "content_parts": [part for part in message["content"] if _is_listed(part)]}
        found.append(shown)
    return found


def _is_listed(part: Any) -> bool:
    """OpenAI's stored messages have texts and pictures; its SDK refuses lists with others."""
    return isinstance(part, dict) and part.get("type") in ("text", "image_url")
