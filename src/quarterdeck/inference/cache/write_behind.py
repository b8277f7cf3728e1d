"""Writes answers to Redis after their requests have ended. Answers of one event-loop turn are written together.

Failures are not reported to anyone: while Redis is unavailable, answers are not cached.
"""

import logging

import msgspec

from quarterdeck.inference.cache import store
from quarterdeck.inference.cache.entry import Entry
from quarterdeck.inference.cache.key import CacheQuery
from quarterdeck.inference.cache.semantic import SemanticCache, SemanticQuery
from quarterdeck.net.redis import Redis, RedisError, RedisUnavailableError, is_to_be_resent
from quarterdeck.net.redis_batches import TurnBatches
from quarterdeck.net.tasks import Spawn

log = logging.getLogger(__name__)

MAX_BATCH = 16
"""Answers stored by one command. It blocks Redis for about 10 µs for each."""


class WriteBehind:
    """The pending writes of one gateway. Stored answers that may match other wordings are added to `semantic`."""

    def __init__(self, redis: Redis, semantic: SemanticCache, spawn: Spawn) -> None:
        self.redis = redis
        self.semantic = semantic
        self.spawn = spawn
        self._batches = TurnBatches(redis, self._send)

    def put(
        self, org: str, query: CacheQuery, entry: Entry, *, max_mb: float, semantic_query: SemanticQuery | None
    ) -> None:
        """Store the entry at the end of this turn. `max_mb` is the organisation's limit."""
        batch_key = (org, entry.model, query.policy.settings.ttl_seconds, max_mb)
        batch = self._batches.batch(batch_key, lambda: _StoreBatch(self, org, store.command_prefix(*batch_key)))
        if semantic_query is not None:
            batch.semantic_queries.append((len(batch.entries), semantic_query, query))
        batch.entries.append((query.key, entry))
        if len(batch.entries) == MAX_BATCH:
            self._batches.send(batch_key)

    def _send(self, batch: "_StoreBatch") -> None:
        packed = [store.pack_entry(key, entry) for key, entry in batch.entries]  # cheaper all at once
        batch.command = store.store_command(batch.prefix, packed)
        if not self.redis.send(batch.command, batch, batch.org):
            self.spawn(batch.send())


class _StoreBatch(msgspec.Struct, eq=False):
    """Answers that are stored by one command, and the receiver of its reply."""

    writes: WriteBehind
    org: str
    prefix: bytes
    entries: list[tuple[str, Entry]] = []
    semantic_queries: list[tuple[int, SemanticQuery, CacheQuery]] = []
    """Those to index once stored, with the position of their entry."""
    command: bytes = b""

    def done(self) -> bool:
        return False

    def set_result(self, stored: list[int], /) -> None:
        for position, semantic_query, query in self.semantic_queries:
            if stored[position]:
                seconds = query.policy.settings.ttl_seconds
                self.writes.semantic.remember(semantic_query, query.key, seconds=seconds)

    def set_exception(self, error: Exception, /) -> None:
        if is_to_be_resent(error):
            self.writes.spawn(self.send())
        else:
            log.debug("could not cache answers: %s", error)

    async def send(self) -> None:
        """Send the command when no connection is open, or again where it was not run."""
        try:
            self.set_result(await self.writes.redis.execute(store.STORE, self.command, self.org))
        except (RedisUnavailableError, RedisError) as error:
            log.debug("could not cache answers: %s", error)
