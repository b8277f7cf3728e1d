"""Answers on their way to Redis: those that end in one turn of the event loop go together, and nobody waits for them.

Where Redis is away they are not kept, and nothing fails.
"""

import logging

import msgspec

from quarterdeck.inference.cache import store
from quarterdeck.inference.cache.entry import Entry
from quarterdeck.inference.cache.key import Question
from quarterdeck.inference.cache.semantic import Asked, SemanticCache
from quarterdeck.net.redis import Redis, RedisError, RedisUnavailableError, is_unknown_script
from quarterdeck.net.redis_batches import TurnBatches
from quarterdeck.net.tasks import Spawn

log = logging.getLogger(__name__)

KEPT_AT_ONCE = 16
"""Answers stored by one command: Redis serves nobody meanwhile, some 10 µs for each."""


class Keeping:
    """One gateway's. What may be given in other words is remembered in `semantic`; `spawn` runs what may go on after a
    request is over."""

    def __init__(self, redis: Redis, semantic: SemanticCache, spawn: Spawn) -> None:
        self.redis = redis
        self.semantic = semantic
        self.spawn = spawn
        self._due = TurnBatches(redis, self._send)

    def keep(self, org: str, question: Question, found: Entry, *, max_mb: float, asked: Asked | None) -> None:
        """Returns at once."""
        alike = (org, found.model, question.plan.policy.ttl_seconds, max_mb)
        batch = self._due.batch(alike, lambda: _Batch(self, store.beginning(*alike)))
        if asked is not None:
            batch.wordings.append((len(batch.entries), asked, question))
        batch.entries.append((question.key, found))
        if len(batch.entries) == KEPT_AT_ONCE:
            self._due.send(alike)

    def _send(self, batch: "_Batch") -> None:
        words = [store.words_of(key, found) for key, found in batch.entries]  # one after the other, as that is cheaper
        batch.command = store.store_command(batch.begin, words)
        if not self.redis.send(batch.command, batch):
            self.spawn(batch.send())


class _Batch(msgspec.Struct, eq=False):
    """Answers that are stored by one command."""

    keeping: Keeping
    begin: bytes
    entries: list[tuple[str, Entry]] = []
    wordings: list[tuple[int, Asked, Question]] = []
    """Whose answers, by their number, may be given to others in other words."""
    command: bytes = b""

    def done(self) -> bool:
        return False

    def set_result(self, kept: list[int], /) -> None:
        for number, asked, question in self.wordings:
            if kept[number]:
                seconds = question.plan.policy.ttl_seconds
                self.keeping.semantic.remember(asked, question.key, seconds=seconds)

    def set_exception(self, error: Exception, /) -> None:
        if is_unknown_script(error):
            self.keeping.spawn(self.send())
        else:
            log.debug("answers were not kept: %s", error)

    async def send(self) -> None:
        """Where no connection is open, or Redis doesn't know the script."""
        try:
            self.set_result(await self.keeping.redis.execute(store.STORE, self.command))
        except (RedisUnavailableError, RedisError) as error:
            log.debug("answers were not kept: %s", error)
