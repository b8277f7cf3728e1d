"""The same question in other words: which earlier answer may stand for a new one.

Everything but the wording of the last user message must be equal, as the exact cache has it: the *context* is its key
with that message left out. Within a context a question is found by its essence (`verification`), so nothing is searched
and a question whose essence is new costs no vector. Only where an essence is known is the embedding model asked for
both wordings, and the cosine decides. The index is this gateway's own, in memory and bounded; the answers lie in the
exact cache under the keys that it remembers, and go with them.
"""

import asyncio
import hashlib
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from math import sqrt
from operator import mul
from typing import Any

import msgspec

from quarterdeck.errors import APIError
from quarterdeck.inference.cache.key import Question, key_of
from quarterdeck.inference.cache.verification import essence
from quarterdeck.inference.call import Head, Operation
from quarterdeck.protocol.requests import AnyRequest
from quarterdeck.settings.cache import SemanticPolicy

Vector = Sequence[float]
Embed = Callable[[str, list[str]], Awaitable[Sequence[Vector]]]
"""Vectors of some texts by a model. Raises APIError."""

EMBED_SECONDS = 1.0
"""A cache that is slower than that is none: the request goes on to its engine."""
WORDINGS = 4
"""Remembered of one essence in one context; the oldest goes."""


@dataclass(slots=True)
class Wording:
    """A question that was answered: in which words, and under which key its answer lies."""

    text: str
    key: str
    expires: float
    vector: Vector | None = None
    """Made when somebody first asks the like."""


@dataclass(slots=True)
class Asked:
    """A question that may have been answered in other words."""

    place: bytes
    """Its context and essence."""
    text: str
    policy: SemanticPolicy
    vector: Vector | None = None


class SemanticCache:
    """All of one gateway. `most`: wordings remembered."""

    def __init__(self, embed: Embed, *, most: int, now: Callable[[], float] = time.monotonic) -> None:
        self.most = most
        self._embed = embed
        self._now = now
        self._places: OrderedDict[bytes, list[Wording]] = OrderedDict()
        self._size = 0

    def __len__(self) -> int:
        return self._size

    async def find(self, asked: Asked) -> str | None:
        """The key of the answer to the nearest wording; None where none is near enough, or its model is away."""
        now = self._now()
        known = [wording for wording in self._places.get(asked.place, ()) if wording.expires > now]
        if not known or not await self._make_vectors(asked, known):
            return None
        scored = [(_cosine(asked.vector, wording.vector), wording) for wording in known]
        cosine, nearest = max(scored, key=lambda pair: pair[0])
        return nearest.key if cosine >= asked.policy.threshold else None

    def remember(self, asked: Asked, key: str, *, seconds: float) -> None:
        """The answer to this lies under `key` now, for so long."""
        wordings = self._places.setdefault(asked.place, [])
        self._places.move_to_end(asked.place)
        kept = [wording for wording in wordings if wording.key != key][1 - WORDINGS :]
        kept.append(Wording(asked.text, key, self._now() + seconds, asked.vector))
        self._size += len(kept) - len(wordings)
        wordings[:] = kept
        while self._size > self.most:
            self._size -= len(self._places.popitem(last=False)[1])

    def forget(self, asked: Asked, key: str) -> None:
        """The answer under `key` is gone."""
        wordings = self._places.get(asked.place)
        if wordings is not None:
            kept = [wording for wording in wordings if wording.key != key]
            self._size -= len(wordings) - len(kept)
            wordings[:] = kept
            if not kept:
                del self._places[asked.place]

    def clear(self) -> None:
        """Remember nothing: another configuration may mean another model."""
        self._places.clear()
        self._size = 0

    async def _make_vectors(self, asked: Asked, known: list[Wording]) -> bool:
        """False: the model is away, too slow, or answers nonsense."""
        wordings: list[Asked | Wording] = [asked, *known]
        without = [wording for wording in wordings if wording.vector is None]
        if not without:
            return True
        try:
            async with asyncio.timeout(EMBED_SECONDS):
                vectors = await self._embed(asked.policy.embedding_model, [wording.text for wording in without])
        except (APIError, TimeoutError):
            return False
        if len(vectors) != len(without):
            return False
        for wording, vector in zip(without, vectors, strict=True):
            wording.vector = vector
        return True


def asked_of(
    question: Question,
    head: Head,
    request: AnyRequest,
    members: dict[str, msgspec.Raw],
    *,
    prompt_version: str = "",
) -> Asked | None:
    """What may be known in other words: a chat whose last message is a user's short text. None: it must not be."""
    policy = question.plan.policy.semantic
    if policy is None or head.operation is not Operation.CHAT:
        return None
    messages: list[Any] = msgspec.json.decode(members["messages"], type=list[msgspec.Raw])
    last = msgspec.json.decode(messages[-1]) if messages else {}
    text = _only_text(last.get("content")) if last.get("role") == "user" else None
    words = essence(text) if text is not None else None
    if text is None or words is None:
        return None
    messages[-1] = {**last, "content": None}
    around = {**members, "messages": msgspec.Raw(msgspec.json.encode(messages))}
    context = key_of(question.plan, head, request, around, prompt_version)
    place = hashlib.blake2b(msgspec.json.encode((context, policy.embedding_model, words)), digest_size=20).digest()
    return Asked(place, text, policy)


def _only_text(content: object) -> str | None:
    """A message's content where it is nothing but one text."""
    if isinstance(content, list) and len(content) == 1 and isinstance(content[0], dict):
        part = content[0]
        content = part.get("text") if part.keys() == {"type", "text"} and part["type"] == "text" else None
    return content if isinstance(content, str) else None


def _cosine(one: Vector | None, other: Vector | None) -> float:
    """0 where the two are not of one space."""
    if not one or not other or len(one) != len(other):
        return 0.0
    lengths = sqrt(sum(map(mul, one, one)) * sum(map(mul, other, other)))
    return sum(map(mul, one, other)) / lengths if lengths else 0.0
