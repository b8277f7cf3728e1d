"""Answers of one turn of the loop are written together, each as if it were alone."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from typing import Any

import pytest
from tests.inference.cache.samples import config, policy_of

from quarterdeck.inference.cache import entry as entries
from quarterdeck.inference.cache import store
from quarterdeck.inference.cache.entry import Entry
from quarterdeck.inference.cache.key import UNRESTRICTED, CacheQuery
from quarterdeck.inference.cache.semantic import SemanticCache, SemanticQuery, Vector
from quarterdeck.inference.cache.write_behind import MAX_BATCH, WriteBehind
from quarterdeck.net.redis import Redis
from quarterdeck.settings.cache import SemanticPolicy

SEMANTIC = SemanticPolicy(embedding_model="minilm")


def a_query(key: str) -> CacheQuery:
    policy = policy_of(config())
    assert policy is not None
    return CacheQuery(key, policy, UNRESTRICTED)


async def embed(model: str, texts: list[str]) -> list[Vector]:
    return [(1.0,) for _ in texts]


class Subject(WriteBehind):
    """Pending writes, and the tasks that they spawned."""

    def __init__(self, redis: Redis) -> None:
        self.tasks: list[asyncio.Task[None]] = []
        self.sent = 0
        super().__init__(redis, SemanticCache(embed, max_entries=100), self.run)

    def _send(self, batch: Any) -> None:
        self.sent += 1
        super()._send(batch)

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        self.tasks.append(asyncio.create_task(work))

    def add(
        self, key: str, *, size: int = 10, org: str = "default", model: str = "m", max_mb: float = 1, words: str = ""
    ) -> None:
        asked = SemanticQuery(words.encode(), words, SEMANTIC) if words else None
        self.put(org, a_query(key), Entry(1.0, model, b"x" * size), max_mb=max_mb, semantic_query=asked)

    async def done(self) -> None:
        await asyncio.sleep(0)
        await self.redis.call("PING")
        await asyncio.gather(*self.tasks)

    async def kept(self, *keys: str, org: str = "default") -> list[str]:
        blobs = [(key, await store.fetch(self.redis, org, key)) for key in keys]
        return [key for key, blob in blobs if blob is not None and entries.decode(blob) is not None]


@pytest.fixture
async def subject(redis: Redis) -> AsyncIterator[Subject]:
    await redis.call("SCRIPT", "LOAD", store.STORE.source)
    made = Subject(redis)
    yield made
    await made.done()


async def test_what_ends_in_one_turn_goes_together(subject: Subject) -> None:
    keys = [f"k{number}" for number in range(MAX_BATCH + 3)]
    for key in keys:
        subject.add(key)
    await subject.done()
    assert await subject.kept(*keys) == keys
    assert subject.sent == 2
    subject.add("later")
    await subject.done()
    assert await subject.kept("later") == ["later"]
    assert subject.tasks == []


async def test_orgs_and_models_are_kept_apart(subject: Subject) -> None:
    subject.add("k1")
    subject.add("k2", model="n")
    subject.add("k1", org="acme")
    await subject.done()
    assert await store.purge(subject.redis, "default", model="m") == 1
    assert await subject.kept("k1", "k2") == ["k2"]
    assert await subject.kept("k1", org="acme") == ["k1"]


async def test_of_those_that_go_together_each_has_its_own_room_and_wording(subject: Subject) -> None:
    room = 3000 / store.MIB
    subject.add("small", words="one", max_mb=room)
    subject.add("large", size=5000, words="two", max_mb=room)
    subject.add("silent", max_mb=room)
    subject.add("last", size=1000, words="three", max_mb=room)
    await subject.done()
    assert await subject.kept("small", "large", "silent", "last") == ["small", "silent", "last"]
    found = [await subject.semantic.find(SemanticQuery(words, "", SEMANTIC)) for words in (b"one", b"two", b"three")]
    assert found == ["small", None, "last"]


async def test_the_next_of_those_that_go_together_may_take_the_first_ones_room(subject: Subject) -> None:
    room = 3000 / store.MIB
    for key in ("a", "b", "c"):
        subject.add(key, size=1000, max_mb=room)
    await subject.done()
    assert await subject.kept("a", "b", "c") == ["b", "c"]


async def test_a_redis_without_the_script_keeps_them_all(subject: Subject) -> None:
    await subject.redis.call("SCRIPT", "FLUSH")
    subject.add("a", words="one")
    subject.add("b")
    await subject.done()
    assert await subject.kept("a", "b") == ["a", "b"]
    assert len(subject.tasks) == 1 and len(subject.semantic) == 1


async def test_a_redis_that_is_away_keeps_none_and_only_its_client_logs_it(
    tmp_path: Any, caplog: pytest.LogCaptureFixture
) -> None:
    redis = Redis(f"unix://{tmp_path}/nobody")
    subject = Subject(redis)
    subject.add("a", words="one")
    await asyncio.sleep(0)
    await asyncio.gather(*subject.tasks)
    assert len(subject.tasks) == 1 and len(subject.semantic) == 0
    assert {record.name for record in caplog.records} <= {"quarterdeck.net.redis_node"}
    await redis.close()
