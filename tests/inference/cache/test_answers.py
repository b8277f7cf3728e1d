"""The cache as the pipeline uses it, with a real Redis and an embedding model that gives equal vectors."""

import asyncio
import json
from collections.abc import AsyncIterator, Coroutine
from contextlib import suppress
from typing import Any

import pytest
from tests.inference.cache.samples import ALICE, a_finished, config, store_entry
from tests.inference.making import DONE, answer, delta, usage

from quarterdeck.inference.cache import entry as entries
from quarterdeck.inference.cache import store
from quarterdeck.inference.cache.answers import AnswerCache, Lookup
from quarterdeck.inference.cache.entry import Entry
from quarterdeck.inference.cache.semantic import Vector
from quarterdeck.inference.call import Head, Operation
from quarterdeck.inference.request import decode
from quarterdeck.inference.routing.directory import Directory
from quarterdeck.net.redis import Redis, RedisUnavailableError
from quarterdeck.record import RequestRecord
from quarterdeck.settings.live import Live

STREAM = (delta("Hel") + delta("lo"), delta(finish="stop") + usage(), DONE)
SEMANTIC = "{default: {exact: true, semantic: {embedding_model: minilm}}}"
RESET, RESET_TOO = "How do I reset my password?", "Please tell me how to reset my password."


class Subject:
    """An AnswerCache, and the tasks that it spawned."""

    def __init__(self, redis: Redis, cache: str = "{default: {exact: true}}") -> None:
        self.config = config(cache)
        self.live = Live(self.config)
        self.redis = redis
        self.tasks: list[asyncio.Task[None]] = []
        self.cache = AnswerCache(self.live, redis, embed=self.embed, spawn=self.spawn)

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        self.tasks.append(asyncio.create_task(work))

    async def embed(self, model: str, texts: list[str]) -> list[Vector]:
        return [(1.0, 0.0) for _ in texts]

    def look(
        self,
        content: str = "Hi",
        *,
        cache_control: bytes = b"",
        operation: Operation = Operation.CHAT,
        body: dict[str, Any] | None = None,
        **changes: Any,
    ) -> Lookup | None:
        body = body or {"model": "m", "messages": [{"role": "user", "content": content}], "temperature": 0} | changes
        text = json.dumps(body).encode()
        head = Head("req_1", operation, ALICE, 0.0, cache_control=cache_control)
        served = Directory.of(self.config).names.get("m")
        assert served is not None
        return self.cache.look_up(head, decode(operation, text), served)

    def miss(self, *args: Any, **kwargs: Any) -> Lookup:
        found = self.look(*args, **kwargs)
        assert found is not None
        return found

    async def done(self) -> None:
        """Wait until Redis has replied to everything: a connection's replies are in order."""
        await asyncio.sleep(0)  # writes are sent at the end of this turn of the loop
        with suppress(RedisUnavailableError):
            await self.redis.call("PING")
        await asyncio.gather(*self.tasks)

    async def stored(self, lookup: Lookup) -> Entry | None:
        assert lookup.query is not None
        blob = await store.fetch(self.redis, lookup.org, lookup.query.key)
        return None if blob is None else entries.decode(blob)


@pytest.fixture
async def subject(redis: Redis) -> AsyncIterator[Subject]:
    made = Subject(redis)
    await redis.call("PING")  # opens the connection, as an admission does
    yield made
    await made.done()


def key_of(lookup: Lookup) -> str:
    assert lookup.query is not None
    return lookup.query.key


def a_body_record(**changes: Any) -> RequestRecord:
    return a_finished(**({"stream": False, "model": "m"} | changes))


def ended(lookup: Lookup, body: bytes, record: RequestRecord | None = None) -> None:
    lookup.take(body, b"application/json")
    lookup.end(record or a_body_record())


async def test_a_name_whose_answers_are_not_kept_is_nothing_to_the_cache(redis: Redis) -> None:
    assert Subject(redis, "{}").look() is None


async def test_an_answer_is_kept_and_found(subject: Subject) -> None:
    lookup = subject.miss()
    assert await lookup.recall(0.0) is None
    ended(lookup, answer())
    await subject.done()
    found = await subject.stored(subject.miss())
    assert found is not None and found.body == answer()
    again = subject.miss()
    assert again.read(entries.encode(found), found.made) == found
    assert again.redis_key == store.entry_key("default", key_of(again))


async def test_an_answer_is_kept_without_a_task(subject: Subject) -> None:
    await store_entry(subject.redis, "acme", "k", Entry(0.0, "m", b"x"), ttl_seconds=1, max_mb=1)  # loads the script
    lookup = subject.miss()
    await lookup.recall(0.0)
    ended(lookup, answer())
    await subject.done()
    assert await subject.stored(lookup) is not None
    assert subject.tasks == []


async def test_an_answer_is_kept_by_a_redis_that_has_forgotten_the_script(subject: Subject) -> None:
    for content in ("one", "two"):
        await subject.redis.call("SCRIPT", "FLUSH")
        lookup = subject.miss(content)
        await lookup.recall(0.0)
        ended(lookup, answer())
        await subject.done()
        assert await subject.stored(lookup) is not None


async def test_an_answer_is_kept_where_the_connection_was_not_open(redis: Redis) -> None:
    subject = Subject(redis)
    lookup = subject.miss()
    await lookup.recall(0.0)
    ended(lookup, answer())
    await asyncio.sleep(0)
    assert len(subject.tasks) == 1
    await subject.done()
    assert await subject.stored(lookup) is not None


async def test_an_answer_that_redis_refuses_is_not_kept(redis: Redis) -> None:
    subject = Subject(redis, SEMANTIC)
    await redis.call("SET", "cache-index:{default}", "no index")
    lookup = subject.miss(RESET)
    await lookup.recall(0.0)
    ended(lookup, answer())
    await subject.done()
    assert (subject.tasks, len(subject.cache.semantic)) == ([], 0)


async def test_a_connection_that_is_lost_costs_an_answer_nothing(subject: Subject) -> None:
    lookup = subject.miss()
    await lookup.recall(0.0)
    ended(lookup, answer())
    await asyncio.sleep(0)
    await subject.redis.close()
    assert subject.tasks == []


async def test_a_stream_is_collected_and_kept_whole(subject: Subject) -> None:
    lookup = subject.miss(stream=True)
    await lookup.recall(0.0)
    collector = lookup.collect()
    assert collector is not None
    for piece in STREAM:
        collector.add(piece)
    lookup.end(a_finished(model="m"))
    await subject.done()
    found = await subject.stored(lookup)
    assert found is not None and found.body == b"".join(STREAM) and found.is_stream


async def test_a_request_says_what_it_was_to_the_cache(subject: Subject) -> None:
    lookup = subject.miss()
    assert lookup.headers == ((b"x-cache", b"miss"), (b"x-cache-key", key_of(lookup).encode()))
    warm = subject.miss(temperature=1)
    assert (warm.state, warm.redis_key, warm.headers) == ("bypass", None, ((b"x-cache", b"bypass"),))
    assert await warm.recall(0.0) is None
    assert warm.collect() is None
    ended(warm, answer())
    assert len(subject.cache.flights) == 0 and subject.tasks == []


async def test_no_cache_renews_the_answer(subject: Subject) -> None:
    lookup = subject.miss(cache_control=b"no-cache")
    assert (lookup.redis_key, lookup.state) == (None, "bypass")
    await lookup.recall(0.0)
    ended(lookup, answer("anew"))
    await subject.done()
    found = await subject.stored(subject.miss())
    assert found is not None and found.body == answer("anew")


async def test_no_store_leaves_nothing(subject: Subject) -> None:
    lookup = subject.miss(cache_control=b"no-store")
    await lookup.recall(0.0)
    ended(lookup, answer())
    await subject.done()
    assert await subject.stored(subject.miss()) is None


async def test_an_answer_older_than_the_caller_takes_will_not_do(subject: Subject) -> None:
    blob = entries.encode(Entry(100.0, "m", b"x"))
    lookup = subject.miss(cache_control=b"max-age=60")
    assert lookup.read(blob, 160.0) is not None
    assert lookup.read(blob, 161.0) is None
    assert lookup.read(b"what is this", 0.0) is None


async def test_an_equal_request_waits_for_the_first_and_has_its_answer(subject: Subject) -> None:
    leader, follower = subject.miss(), subject.miss()
    await leader.recall(0.0)
    waiting = asyncio.create_task(follower.recall(0.0))
    await asyncio.sleep(0)
    ended(leader, answer())
    found = await waiting
    assert found is not None and found.body == answer()


async def test_who_has_nothing_to_wait_for_leads_at_once(subject: Subject) -> None:
    leader, follower, anew = subject.miss(), subject.miss(), subject.miss(cache_control=b"no-cache")
    assert leader.lead() and leader.flight is not None
    assert not follower.lead() and follower.flight is None
    assert anew.lead() and anew.flight is not None
    assert subject.miss("another").lead()
    warm = subject.miss(temperature=1)
    assert warm.lead() and warm.flight is None
    unkept = subject.miss("unkept", cache_control=b"no-store")
    assert unkept.lead() and unkept.flight is None


async def test_who_may_be_known_in_other_words_has_that_to_wait_for(redis: Redis) -> None:
    lookup = Subject(redis, SEMANTIC).miss(RESET)
    assert not lookup.lead() and lookup.flight is None
    assert await lookup.recall(0.0) is None and lookup.flight is not None


async def test_who_gives_up_keeps_nobody_waiting(subject: Subject) -> None:
    leader, follower = subject.miss(), subject.miss()
    await leader.recall(0.0)
    waiting = asyncio.create_task(follower.recall(0.0))
    await asyncio.sleep(0)
    leader.give_up()
    assert await waiting is None
    ended(leader, answer())
    follower.give_up()
    assert subject.tasks == []


@pytest.mark.parametrize("status", ["error", "cancelled", "lost"])
async def test_a_first_that_fails_sends_the_others_on_their_way(subject: Subject, status: str) -> None:
    leader, follower = subject.miss(), subject.miss()
    await leader.recall(0.0)
    waiting = asyncio.create_task(follower.recall(0.0))
    await asyncio.sleep(0)
    leader.end(a_body_record(status=status))
    assert await waiting is None
    assert follower.flight is not None  # it leads now
    ended(follower, answer())


async def test_a_stream_that_is_too_long_sends_the_others_on_their_way_at_once(redis: Redis) -> None:
    subject = Subject(redis, "{default: {exact: true, max_entry_kb: 1}}")
    leader, follower = subject.miss(stream=True), subject.miss(stream=True)
    await leader.recall(0.0)
    collector = leader.collect()
    assert collector is not None
    waiting = asyncio.create_task(follower.recall(0.0))
    await asyncio.sleep(0)
    collector.add(delta("x" * 1024))
    assert await waiting is None
    leader.end(a_finished())
    follower.end(a_finished(status="cancelled"))
    await subject.done()
    assert await subject.stored(leader) is None


async def test_a_body_that_is_too_long_is_not_kept(redis: Redis) -> None:
    subject = Subject(redis, "{default: {exact: true, max_entry_kb: 1}}")
    lookup = subject.miss()
    await lookup.recall(0.0)
    ended(lookup, answer("x" * 1024))
    await subject.done()
    assert await subject.stored(lookup) is None


async def test_a_fallbacks_answer_is_not_kept(subject: Subject) -> None:
    lookup = subject.miss()
    await lookup.recall(0.0)
    ended(lookup, answer(), a_body_record(model="other"))
    await subject.done()
    assert await subject.stored(lookup) is None


async def test_all_choices_must_be_there(subject: Subject) -> None:
    lookup = subject.miss(n=2)
    await lookup.recall(0.0)
    ended(lookup, answer())
    await subject.done()
    assert await subject.stored(lookup) is None


async def test_each_of_several_prompts_must_have_its_answer(subject: Subject) -> None:
    body = {"model": "m", "prompt": ["a", "b"], "temperature": 0}
    for finishes, is_kept in ((b'"finish_reason":"stop"', False), (b'"finish_reason":"stop"' * 2, True)):
        lookup = subject.miss(body=body, operation=Operation.COMPLETIONS)
        assert lookup.lead()
        ended(lookup, finishes)
        await subject.done()
        assert (await subject.stored(lookup) is not None) is is_kept


async def test_the_end_is_told_once(subject: Subject) -> None:
    lookup = subject.miss()
    await lookup.recall(0.0)
    ended(lookup, answer())
    lookup.end(a_body_record(status="error"))
    await subject.done()
    assert await subject.redis.call("ZCARD", "cache-index:{default}") == 1
    assert await subject.stored(lookup) is not None


async def test_the_same_in_other_words_has_the_earlier_answer(redis: Redis) -> None:
    subject = Subject(redis, SEMANTIC)
    first = subject.miss(RESET)
    await first.recall(0.0)
    ended(first, answer())
    await subject.done()
    again = subject.miss(RESET_TOO)
    found = await again.recall(0.0)
    assert found is not None and found.body == answer()
    reply = again.replay(found, 0.0, shows_usage=False, headers=())
    assert dict(reply.headers)[b"x-cache-key"].decode() == key_of(first) != key_of(again)
    assert await subject.miss("How do I reset my router?").recall(0.0) is None


async def test_what_was_purged_is_not_known_in_other_words(redis: Redis) -> None:
    subject = Subject(redis, SEMANTIC)
    first = subject.miss(RESET)
    await first.recall(0.0)
    ended(first, answer())
    await subject.done()
    assert len(subject.cache.semantic) == 1
    await store.purge(redis, "default")
    assert await subject.miss(RESET_TOO).recall(0.0) is None
    assert len(subject.cache.semantic) == 0


async def test_a_redis_that_is_away_costs_an_answer_nothing(tmp_path: Any) -> None:
    redis = Redis(f"unix://{tmp_path}/nobody")
    subject = Subject(redis, SEMANTIC)
    lookup = subject.miss(RESET)
    await lookup.recall(0.0)
    ended(lookup, answer())
    await subject.done()
    assert len(subject.cache.semantic) == 0
    await redis.close()


async def test_another_configuration_forgets_what_was_known_in_other_words(redis: Redis) -> None:
    subject = Subject(redis, SEMANTIC)
    first = subject.miss(RESET)
    await first.recall(0.0)
    ended(first, answer())
    await subject.done()
    subject.live.replace(config("{}"))
    assert subject.look() is None
    assert len(subject.cache.semantic) == 0
