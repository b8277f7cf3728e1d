"""Entries of Redis streams: claimed from dead consumers, moved to the dead stream and back."""

from tests.records import a_record
from tests.worker.bench import ORG, Bench, eventually, is_empty, running

from quarterdeck.accounting.redis_keys import stream_key
from quarterdeck.record import encode
from quarterdeck.worker.streams import Consumer, dead_key, replay_dead


async def test_what_was_trimmed_while_a_dead_worker_had_it_hides_nothing(bench: Bench) -> None:
    """Redis 6.2 keeps such entries pending for ever."""
    key = stream_key(ORG)
    dead = Consumer(bench.redis, "ledger", "worker_dead", idle_ms=0)
    await dead.join([ORG])
    for _ in range(30):
        await bench.redis.call("XADD", key, "*", "record", encode(a_record()))
    assert len(await dead.read(bench.blocking, [ORG], count=30, block_ms=10)) == 30
    await bench.redis.call("XTRIM", key, "MAXLEN", 1)
    living = Consumer(bench.redis, "ledger", "worker_b", idle_ms=0)
    found = [entry for _ in range(5) for entry in await living.claim(ORG, count=10)]
    assert len({entry.id for entry in found}) == 1


async def test_what_was_set_aside_can_be_put_back(bench: Bench) -> None:
    record = a_record()
    await bench.redis.call(
        "XADD", dead_key(ORG), "*", "reason", "unreadable: by an older worker", "entry", "1-1", "record", encode(record)
    )
    assert await replay_dead(bench.redis, ORG) == 1
    assert await bench.waiting(dead_key(ORG)) == 0
    async with running(bench.ledger_loop()):
        await eventually(lambda: is_empty(bench))
    assert await bench.rows() == {record.id}
