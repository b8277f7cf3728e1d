"""Captured contents are redacted, stored once, and gone from Redis."""

import asyncio
import json
from collections.abc import Awaitable, Coroutine
from typing import Any

import pytest
from tests.records import a_record
from tests.telemetry.otlp_sink import OTLPSink
from tests.worker.bench import ALL, ORG, SINK, Bench, eventually, is_empty, running

from quarterdeck.accounting import commit
from quarterdeck.accounting.redis_keys import content_key, stream_key
from quarterdeck.accounting.scopes import ScopeSet
from quarterdeck.content import Content, encode
from quarterdeck.record import RequestRecord
from quarterdeck.redaction.redactor import Redactor
from quarterdeck.store.contents import ContentStore
from quarterdeck.worker.contents import ContentIntake
from quarterdeck.worker.ledger_loop import LedgerLoop
from quarterdeck.worker.streams import Consumer

SECRET = "sk-qd-" + "a1B2" * 10


def a_content(text: str = f"My key is {SECRET}") -> Content:
    said = [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}]
    asked = {"messages": [{"role": "user", "content": text}]}
    return Content(level="full", input=json.dumps(asked).encode(), output=json.dumps(said).encode())


def a_loop(bench: Bench, redactor: Redactor | None = None, **changes: Any) -> LedgerLoop:
    loop = bench.ledger_loop(**changes)
    used = redactor or Redactor()
    loop._contents = ContentIntake(bench.redis, ContentStore(bench.database), lambda: used, bench.metrics)
    return loop


async def settle(bench: Bench, content: Content | None = None, **changes: Any) -> RequestRecord:
    record = a_record(**({"content": "full", "started": 1.0} | changes))
    await commit.settle(bench.redis, record, ScopeSet(ORG), encode(content or a_content()))
    return record


async def waiting(bench: Bench, record: RequestRecord) -> bool:
    return bool(await bench.redis.call("EXISTS", content_key(ORG, record.id)))


async def stored(bench: Bench, *records: RequestRecord) -> dict[str, Content]:
    return await ContentStore(bench.database).retrieve([record.id for record in records], org=ORG)


async def test_content_is_stored_redacted_and_leaves_redis(any_bench: Bench) -> None:
    bench = any_bench
    records = [await settle(bench) for _ in range(300)]
    plain = a_record()
    await bench.append(plain)
    async with running(a_loop(bench)):
        await eventually(lambda: is_empty(bench))
    found = await stored(bench, *records, plain)
    assert set(found) == {record.id for record in records}
    for content in found.values():
        assert content.redacted == {"api_key": 2}
        assert SECRET.encode() not in (content.input or b"") + (content.output or b"")
    assert not any([await waiting(bench, record) for record in records])
    assert {record.content for record in await bench.ledger.list(ALL, limit=1000)} == {"full", "off"}
    assert bench.metrics.contents.values[("stored",)] == 300


async def test_a_worker_that_dies_before_it_acknowledges_stores_nothing_twice(bench: Bench, sink: OTLPSink) -> None:
    record = await settle(bench)
    dead = Consumer(bench.redis, "ledger", "worker_dead", idle_ms=0)
    await dead.join([ORG])
    await dead.read(bench.blocking, [ORG], count=10, block_ms=10)
    await bench.ledger.insert([record])
    store = ContentStore(bench.database)
    await ContentIntake(bench.redis, store, Redactor, bench.metrics).store([record])  # and here it dies
    other = bench.another()
    async with running(a_loop(bench, name="worker_b", sinks=[SINK]), other.sink_loop(sink)):
        await eventually(lambda: is_empty(bench))
        await asyncio.to_thread(sink.wait_for, lambda s: record.trace_id in s.observations)
    await other.blocking.close()
    spans = [span.attributes for span in sink.spans]
    assert any("langfuse.observation.input" in each for each in spans)  # the trace was not made before
    assert ("missing",) not in bench.metrics.contents.values
    assert await store.count(org=ORG) == 1
    assert (await stored(bench, record))[record.id].redacted == {"api_key": 2}


class Died(BaseException):
    """The end of a worker, which nothing catches."""


class Steps:
    """Counts steps, and dies at one of them."""

    def __init__(self, last: int) -> None:
        self.taken, self.last = 0, last

    async def around(self, work: Awaitable[Any]) -> Any:
        self._step(work)
        done = await work
        self._step(None)
        return done

    def _step(self, work: Awaitable[Any] | None) -> None:
        self.taken += 1
        if self.taken == self.last:
            if isinstance(work, Coroutine):
                work.close()
            raise Died


class DyingRedis:
    def __init__(self, redis: Any, steps: Steps) -> None:
        self._redis, self._steps = redis, steps

    async def call(self, *words: Any) -> Any:
        return await self._steps.around(self._redis.call(*words))


class DyingStore:
    def __init__(self, store: ContentStore, steps: Steps) -> None:
        self._store, self._steps = store, steps

    async def deletions(self, *arguments: Any, **options: Any) -> Any:
        return await self._steps.around(self._store.deletions(*arguments, **options))

    async def insert(self, *arguments: Any) -> Any:
        return await self._steps.around(self._store.insert(*arguments))


STEPS = 8
"""Before and after each of: read from Redis, read deletions, insert, remove from Redis."""


@pytest.mark.parametrize("last", range(1, STEPS + 2))
async def test_wherever_a_worker_dies_each_content_is_stored_once(any_bench: Bench, last: int) -> None:
    bench, steps = any_bench, Steps(last)
    records = [await settle(bench) for _ in range(20)]
    dead = Consumer(bench.redis, "ledger", "worker_dead", idle_ms=0)
    await dead.join([ORG])
    await dead.read(bench.blocking, [ORG], count=100, block_ms=10)
    await bench.ledger.insert(records)
    store = ContentStore(bench.database)
    redis: Any = DyingRedis(bench.redis, steps)
    dying: Any = DyingStore(store, steps)
    intake = ContentIntake(redis, dying, Redactor, bench.metrics)
    if last <= STEPS:
        with pytest.raises(Died):
            await intake.store(records)
    else:  # it dies before it acknowledges
        assert set(await intake.store(records)) == {record.id for record in records}
        assert steps.taken == STEPS
    async with running(a_loop(bench, name="worker_b")):
        await eventually(lambda: is_empty(bench))
    assert set(await stored(bench, *records)) == {record.id for record in records}
    assert not any([await waiting(bench, record) for record in records])
    assert ("missing",) not in bench.metrics.contents.values


async def test_what_was_deleted_before_the_worker_saw_it_is_not_stored(bench: Bench) -> None:
    record = await settle(bench, user="u")
    other = await settle(bench, user="v")
    later = await settle(bench, user="u", started=4e9)
    await ContentStore(bench.database).delete("user", "u", org=ORG, key="key_1")
    async with running(a_loop(bench)):
        await eventually(lambda: is_empty(bench))
    assert set(await stored(bench, record, other, later)) == {other.id, later.id}
    assert not await waiting(bench, record)
    assert bench.metrics.contents.values[("deleted",)] == 1


async def test_a_record_whose_content_is_gone_reaches_the_ledger_and_the_log_says_so(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    record = await settle(bench)
    await bench.redis.call("DEL", content_key(ORG, record.id))
    async with running(a_loop(bench)):
        await eventually(lambda: is_empty(bench))
    assert await bench.rows() == {record.id}
    assert bench.metrics.contents.values[("missing",)] == 1
    (line,) = [each for each in caplog.records if "missing" in each.message]
    assert vars(line)["requests"] == [record.id]


class Broken(Redactor):
    def content(self, content: Content) -> Content:
        raise RuntimeError("a bug")


@pytest.mark.parametrize("redactor", [Broken(), None], ids=["a bug", "no configuration"])
async def test_what_cannot_be_redacted_is_dropped_and_its_record_is_not(
    bench: Bench, redactor: Redactor | None
) -> None:
    record = await settle(bench)
    loop = bench.ledger_loop()
    loop._contents = ContentIntake(bench.redis, ContentStore(bench.database), lambda: redactor, bench.metrics)
    async with running(loop):
        await eventually(lambda: is_empty(bench))
    assert await bench.rows() == {record.id}
    assert await stored(bench, record) == {}
    assert not await waiting(bench, record)
    assert bench.metrics.contents.values[("failed",)] == 1


async def test_an_unreadable_content_is_dropped(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    record = await settle(bench)
    await bench.redis.call("SET", content_key(ORG, record.id), b"\x00garbage " + SECRET.encode())
    async with running(a_loop(bench)):
        await eventually(lambda: is_empty(bench))
    assert await bench.rows() == {record.id}
    assert SECRET not in caplog.text


async def test_the_largest_batch_does_not_hold_the_loop(bench: Bench) -> None:
    records = [await settle(bench, a_content("word " * 12_000)) for _ in range(50)]
    turns = 0
    intake = ContentIntake(bench.redis, ContentStore(bench.database), Redactor, bench.metrics)

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count())
    await intake.store(records)
    counting.cancel()
    assert turns > len(records)
    assert await bench.redis.call("XLEN", stream_key(ORG)) == 50
