"""The semantic cache: finds an earlier answer to the same question in other words.

Everything but the wording of the last user message must be equal: the *context* is the exact cache's key without that
message. Within a context, a question is looked up by its normalized form (`normalization`), so nothing is searched and
a new question costs no embedding. Only if that form is known, both wordings are embedded and their cosine decides. The
index belongs to this gateway, is held in memory and is bounded. The answers are in the exact cache, under the keys that
the index has.
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
from quarterdeck.inference.cache.key import CacheQuery, cache_key
from quarterdeck.inference.cache.normalization import normalize
from quarterdeck.inference.call import Head, Operation
from quarterdeck.inference.request import InferenceRequest
from quarterdeck.settings.cache import SemanticPolicy

Vector = Sequence[float]
Embed = Callable[[str, list[str]], Awaitable[Sequence[Vector]]]
"""Vectors of texts by a model. Raises APIError."""

EMBED_SECONDS = 1.0
"""Limit for embedding. Past it the request is sent to its engine."""
MAX_WORDINGS = 4
"""Indexed wordings of one question in one context. The oldest is dropped."""


@dataclass(slots=True)
class IndexedWording:
    """A question that was answered."""

    text: str
    key: str
    """The answer's key in the exact cache."""
    expires: float
    """When the answer expires, by the index' clock."""
    vector: Vector | None = None
    """None until another wording is compared with it."""


@dataclass(slots=True)
class SemanticQuery:
    """A question that may have been answered in other words."""

    bucket: bytes
    """Digest of its context and its normalized form."""
    text: str
    policy: SemanticPolicy
    vector: Vector | None = None


class SemanticCache:
    """The index of one gateway. `max_entries` bounds its wordings."""

    def __init__(self, embed: Embed, *, max_entries: int, now: Callable[[], float] = time.monotonic) -> None:
        self.max_entries = max_entries
        self._embed = embed
        self._now = now
        self._buckets: OrderedDict[bytes, list[IndexedWording]] = OrderedDict()
        self._size = 0

    def __len__(self) -> int:
        return self._size

    async def find(self, query: SemanticQuery) -> str | None:
        """The key of the nearest wording's answer. None: none is near enough, or the embedding model is unavailable."""
        now = self._now()
        known = [wording for wording in self._buckets.get(query.bucket, ()) if wording.expires > now]
        if not known or not await self._add_vectors(query, known):
            return None
        scored = [(_cosine(query.vector, wording.vector), wording) for wording in known]
        cosine, nearest = max(scored, key=lambda pair: pair[0])
        return nearest.key if cosine >= query.policy.threshold else None

    def remember(self, query: SemanticQuery, key: str, *, seconds: float) -> None:
        """Index a question whose answer is cached under `key` for `seconds`."""
        wordings = self._buckets.setdefault(query.bucket, [])
        self._buckets.move_to_end(query.bucket)
        kept = [wording for wording in wordings if wording.key != key][1 - MAX_WORDINGS :]
        kept.append(IndexedWording(query.text, key, self._now() + seconds, query.vector))
        self._size += len(kept) - len(wordings)
        wordings[:] = kept
        while self._size > self.max_entries:
            self._size -= len(self._buckets.popitem(last=False)[1])

    def forget(self, query: SemanticQuery, key: str) -> None:
        """Remove a wording: the answer under `key` is no longer cached."""
        wordings = self._buckets.get(query.bucket)
        if wordings is not None:
            kept = [wording for wording in wordings if wording.key != key]
            self._size -= len(wordings) - len(kept)
            wordings[:] = kept
            if not kept:
                del self._buckets[query.bucket]

    def clear(self) -> None:
        """Empty the index: another configuration may have another embedding model."""
        self._buckets.clear()
        self._size = 0

    async def _add_vectors(self, query: SemanticQuery, known: list[IndexedWording]) -> bool:
        """Embed the texts that have no vector. False: the model is unavailable, too slow, or its answer is invalid."""
        wordings: list[SemanticQuery | IndexedWording] = [query, *known]
        missing = [wording for wording in wordings if wording.vector is None]
        if not missing:
            return True
        try:
            async with asyncio.timeout(EMBED_SECONDS):
                vectors = await self._embed(query.policy.embedding_model, [wording.text for wording in missing])
        except (APIError, TimeoutError):
            return False
        if len(vectors) != len(missing):
            return False
        for wording, vector in zip(missing, vectors, strict=True):
            wording.vector = vector
        return True


def make_semantic_query(
    query: CacheQuery, head: Head, request: InferenceRequest, *, prompt_version: str = ""
) -> SemanticQuery | None:
    """The semantic query of a chat whose last message is a user's short text. None for any other request."""
    policy = query.policy.settings.semantic
    if policy is None or request.operation is not Operation.CHAT:
        return None
    messages: list[Any] = msgspec.json.decode(request.members["messages"], type=list[msgspec.Raw])
    last = msgspec.json.decode(messages[-1]) if messages else {}
    text = _only_text(last.get("content")) if last.get("role") == "user" else None
    words = normalize(text) if text is not None else None
    if text is None or words is None:
        return None
    messages[-1] = {**last, "content": None}
    around = {**request.members, "messages": msgspec.Raw(msgspec.json.encode(messages))}
    context = cache_key(query.policy, head, request.parsed, around, prompt_version)
    bucket = hashlib.blake2b(msgspec.json.encode((context, policy.embedding_model, words)), digest_size=20).digest()
    return SemanticQuery(bucket, text, policy)


def _only_text(content: object) -> str | None:
    """A message's content, if it is one text and nothing else."""
    if isinstance(content, list) and len(content) == 1 and isinstance(content[0], dict):
        part = content[0]
        content = part.get("text") if part.keys() == {"type", "text"} and part["type"] == "text" else None
    return content if isinstance(content, str) else None


def _cosine(one: Vector | None, other: Vector | None) -> float:
    """0 if the vectors are of different lengths."""
    if not one or not other or len(one) != len(other):
        return 0.0
    lengths = sqrt(sum(map(mul, one, one)) * sum(map(mul, other, other)))
    return sum(map(mul, one, other)) / lengths if lengths else 0.0
