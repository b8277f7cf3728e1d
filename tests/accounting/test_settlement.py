"""Every record arrives once: with Redis away, paused or killed, with a full disk, after a crash."""

import asyncio
import contextlib
import errno
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.net.upstream import until
from tests.records import a_record
from tests.servers import RedisServer

from quarterdeck.accounting import admission, commit, leases, redis_keys
from quarterdeck.accounting.admission import Reservation
from quarterdeck.accounting.commit import Note
from quarterdeck.accounting.scopes import Scope, ScopeSet
from quarterdeck.accounting.settlement import Settlement
from quarterdeck.net.redis import Redis, RedisUnavailableError
from quarterdeck.record import RequestRecord, decode
from quarterdeck.settings.limits import Limits
from quarterdeck.store.spool import Spool

ORG = "default"
LIMITED = ScopeSet(ORG, (Scope("key:key_1", Limits(concurrent_requests=99)),))


def a_settlement(redis: Redis, spool: Spool, **changes: Any) -> Settlement:
    """A settlement that looks at its spool all the time."""
    return Settlement(redis, spool, replay_seconds=0.01, **changes)


@pytest.fixture
async def own(own_redis_server: RedisServer) -> AsyncIterator[Redis]:
    client = Redis(own_redis_server.url(), reply_timeout=0.3, retry_seconds=0.02)
    yield client
    await client.close()


@asynccontextmanager
async def running(*subjects: Settlement) -> AsyncIterator[None]:
    """Run them; one that ends by itself is a failure."""
    tasks = [asyncio.create_task(subject.run()) for subject in subjects]
    try:
        yield
        assert not any(task.done() for task in tasks)
    finally:
        for task in tasks:
            task.cancel()
        for task in tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task


async def stream(redis: Redis) -> list[str]:
    async with asyncio.timeout(10):
        while True:
            with contextlib.suppress(RedisUnavailableError):
                entries = await redis.call("XRANGE", redis_keys.stream_key(ORG), "-", "+")
                return [decode(fields[1]).id for _, fields in entries]
            await asyncio.sleep(0.01)


async def arrived(redis: Redis, records: Sequence[RequestRecord]) -> None:
    """Wait until all of them are in the stream, and check that each is there once."""
    wanted = {record.id for record in records}
    async with asyncio.timeout(20):
        while not wanted <= set(await stream(redis)):  # noqa: ASYNC110  # a poll: Redis has no event for it
            await asyncio.sleep(0.01)
    assert sorted(await stream(redis)) == sorted(wanted)


async def reserved(
    redis: Redis, subject: Settlement, record: RequestRecord, *, lease_seconds: float | None = None
) -> None:
    note = Note(record, LIMITED.noted)
    seconds = subject.lease_seconds if lease_seconds is None else lease_seconds
    wanted = Reservation(record.id, LIMITED, msgspec.json.encode(note), 100, lease_seconds=seconds)
    assert (await admission.reserve(redis, wanted)).refused is None
    subject.begin(ORG, record.id, lambda: note)


def settle_all(subject: Settlement, count: int) -> list[RequestRecord]:
    records = [a_record() for _ in range(count)]
    for record in records:
        subject.settle(record, LIMITED)
    return records


def files(folder: Path) -> list[Path]:
    """Of records; not the space that is reserved for them."""
    return [path for path in folder.iterdir() if path.suffix != ".reserve"]


def contents(folder: Path) -> bytes:
    """The contents of the only file."""
    (file,) = files(folder)
    return file.read_bytes()


def cut_off_the_end(folder: Path) -> None:
    (file,) = files(folder)
    file.write_bytes(file.read_bytes()[:-50])


# with Redis


async def test_records_are_committed_and_nothing_touches_the_disk(redis: Redis, tmp_path: Path) -> None:
    subject = a_settlement(redis, Spool(tmp_path / "spool"))
    records = settle_all(subject, 50)
    await subject.drain()
    await arrived(redis, records)
    assert not (tmp_path / "spool").exists()


async def test_a_record_that_was_settled_twice_is_there_once(redis: Redis, tmp_path: Path) -> None:
    subject = a_settlement(redis, Spool(tmp_path))
    record = a_record()
    for _ in range(3):
        subject.settle(record, LIMITED)
    await subject.drain()
    await arrived(redis, [record])


# without Redis


async def test_with_redis_away_records_wait_on_disk_and_are_replayed(
    own_redis_server: RedisServer, own: Redis, tmp_path: Path
) -> None:
    spooled: list[int] = []
    subject = a_settlement(own, Spool(tmp_path), on_spooled=spooled.append)
    own_redis_server.stop()
    async with running(subject):
        records = settle_all(subject, 100)
        await subject.drain()
        assert (Spool(tmp_path).waiting(), sum(spooled)) == (100, 100)
        assert len(spooled) < 20, "what came while the disk was busy went with the next write"
        own_redis_server.start()
        await arrived(own, records)
        await until(lambda: files(tmp_path) == [])


async def test_records_of_a_gateway_that_is_gone_are_anothers_to_bring(
    own_redis_server: RedisServer, own: Redis, tmp_path: Path
) -> None:
    own_redis_server.stop()
    dead = a_settlement(own, Spool(tmp_path))
    records = settle_all(dead, 20)
    await dead.drain()
    own_redis_server.start()
    async with running(a_settlement(own, Spool(tmp_path)), a_settlement(own, Spool(tmp_path))):
        await arrived(own, records)
        await until(lambda: files(tmp_path) == [])


async def test_a_crash_in_the_middle_of_a_write_loses_only_what_was_not_confirmed(redis: Redis, tmp_path: Path) -> None:
    records = [a_record() for _ in range(3)]
    Spool(tmp_path).append([msgspec.json.encode(Note(record, LIMITED.noted)) for record in records])
    cut_off_the_end(tmp_path)
    async with running(a_settlement(redis, Spool(tmp_path))):
        await arrived(redis, records[:2])
        await until(lambda: files(tmp_path) == [])


async def test_a_crash_between_replay_and_removal_doubles_nothing(redis: Redis, tmp_path: Path) -> None:
    records = [a_record() for _ in range(3)]
    for record in records[:2]:
        await commit.settle(redis, record, LIMITED)
    dead = Spool(tmp_path)
    dead.append([msgspec.json.encode(Note(record, LIMITED.noted)) for record in records])
    taken = dead.take()
    assert taken is not None
    dead.put_back(taken)
    async with running(a_settlement(redis, Spool(tmp_path))):
        await arrived(redis, records)


async def test_a_line_that_nobody_can_read_is_set_aside_and_stops_nothing(
    redis: Redis, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    record = a_record()
    Spool(tmp_path).append([b"{}", b"\xff", msgspec.json.encode(Note(record, LIMITED.noted)), b'{"reserved":1}'])
    async with running(a_settlement(redis, Spool(tmp_path))):
        await arrived(redis, [record])
        await until(lambda: [path.suffix for path in files(tmp_path)] == [".unreadable"])
    assert contents(tmp_path) == b'{}\n\xff\n{"reserved":1}\n'
    assert "3 unreadable records in the spool were moved" in caplog.text


@pytest.mark.parametrize("how", ["stopped", "paused", "killed"])
async def test_records_settled_all_through_an_outage_arrive_once(
    own_redis_server: RedisServer, own: Redis, tmp_path: Path, how: str
) -> None:
    """For some of them it is not known whether Redis has them, so they are sent again."""
    subject = a_settlement(own, Spool(tmp_path))
    records: list[RequestRecord] = []

    async def load() -> None:
        while True:
            records.extend(settle_all(subject, 5))
            await asyncio.sleep(0.01)

    async with running(subject):
        loading = asyncio.create_task(load())
        await until(lambda: len(records) > 20)
        if how == "stopped":
            own_redis_server.pause()
        elif how == "paused":
            await own.call("CLIENT", "PAUSE", 700, "ALL")
        else:
            await own.call("CONFIG", "SET", "appendfsync", "always")
            own_redis_server.kill()
        await until(lambda: Spool(tmp_path).waiting() > 20)
        if how == "killed":
            own_redis_server.start()
        own_redis_server.resume()
        after = len(records)
        await until(lambda: len(records) > after + 100)
        loading.cancel()
        await subject.drain()
        await arrived(own, records)
        await until(lambda: files(tmp_path) == [])


async def test_a_redis_that_refuses_to_write_is_as_good_as_away(
    own_redis_server: RedisServer, own: Redis, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await own.call("CONFIG", "SET", "maxmemory", "1")
    subject = a_settlement(own, Spool(tmp_path))
    records = settle_all(subject, 3)
    await subject.drain()
    assert Spool(tmp_path).waiting() == 3
    assert "OOM" in caplog.text
    async with running(subject):
        await asyncio.sleep(0.05)
        await own.call("CONFIG", "SET", "maxmemory", "0")
        await arrived(own, records)


# full disk


class FullSpool(Spool):
    """A full disk, until `is_full` is False."""

    is_full = True

    def append(self, lines: Sequence[bytes], short: Sequence[bytes] | None = None) -> bool:
        if self.is_full:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().append(lines, short)


async def test_with_redis_away_and_the_disk_full_records_wait_in_memory_and_this_is_said(
    own_redis_server: RedisServer, own: Redis, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    own_redis_server.stop()
    subject = a_settlement(own, FullSpool(tmp_path))
    records = settle_all(subject, 5)
    await subject.drain()
    assert [record.levelno for record in caplog.records][-1] == logging.CRITICAL
    assert "5 records are in memory only" in caplog.text
    assert subject.unsaved == 5
    own_redis_server.start()
    async with running(subject):
        await arrived(own, records)
        await until(lambda: subject.unsaved == 0)


async def test_records_count_as_unsaved_until_redis_or_the_disk_has_them(
    own_redis_server: RedisServer, own: Redis, tmp_path: Path
) -> None:
    subject = a_settlement(own, Spool(tmp_path))
    settle_all(subject, 60)  # a full batch is sent at once, the rest at the end of the turn
    assert subject.unsaved == 60
    await asyncio.sleep(0)
    assert subject.unsaved == 60
    await subject.drain()
    assert subject.unsaved == 0
    own_redis_server.stop()
    settle_all(subject, 60)
    assert subject.unsaved == 60
    await subject.drain()
    assert (subject.unsaved, Spool(tmp_path).waiting()) == (0, 60)


async def test_what_is_in_memory_goes_to_disk_at_the_end_if_there_is_room(
    own_redis_server: RedisServer, own: Redis, tmp_path: Path
) -> None:
    own_redis_server.stop()
    spool = FullSpool(tmp_path)
    subject = a_settlement(own, spool)
    settle_all(subject, 5)
    await subject.drain()
    spool.is_full = False
    await subject.drain()
    assert spool.waiting() == 5


class BrokenSpool(Spool):
    """A folder that cannot be read."""

    def take(self) -> Path | None:
        raise OSError(errno.EIO, "Input/output error")


async def test_a_spool_that_can_not_be_read_does_not_end_the_gateway(
    redis: Redis, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(a_settlement(redis, BrokenSpool(tmp_path))):
        await until(lambda: "could not read the spool" in caplog.text)


# leases


async def deadline(redis: Redis, record: RequestRecord) -> float:
    """When the record's reservation expires, Unix ms by Redis' clock."""
    return float(await redis.call("ZSCORE", redis_keys.deadlines_key(ORG), record.id))


async def renewed(redis: Redis, record: RequestRecord, *, after: float) -> None:
    """Wait until the deadline is later than `after`."""
    async with asyncio.timeout(20):
        while await deadline(redis, record) <= after:  # noqa: ASYNC110  # a poll: Redis has no event for it
            await asyncio.sleep(0.01)


async def test_a_long_request_is_not_taken_for_lost(redis: Redis, tmp_path: Path) -> None:
    subject = a_settlement(redis, Spool(tmp_path), renew_seconds=0.01)
    record = a_record(status="lost")
    await reserved(redis, subject, record)
    first = await deadline(redis, record)
    async with running(subject):
        for _ in range(3):
            await redis.call("ZADD", redis_keys.deadlines_key(ORG), "XX", 1, record.id)
            assert await leases.settle_expired(redis, ORG) == 0
            await renewed(redis, record, after=first)
            assert await leases.settle_expired(redis, ORG, grace_seconds=0) == 0
    subject.settle(a_record(id=record.id), LIMITED)
    await subject.drain()
    await arrived(redis, [record])


async def test_reservations_are_renewed_each_third_of_a_lease(redis: Redis, tmp_path: Path) -> None:
    subject = a_settlement(redis, Spool(tmp_path), lease_seconds=0.3)
    record = a_record(status="lost")
    await reserved(redis, subject, record)
    before = await deadline(redis, record)
    async with running(subject):
        await renewed(redis, record, after=before)


async def test_a_changed_lease_holds_from_the_next_renewal_on(redis: Redis, tmp_path: Path) -> None:
    subject = a_settlement(redis, Spool(tmp_path), lease_seconds=600)
    record = a_record(status="lost")
    await reserved(redis, subject, record)
    before = await deadline(redis, record)
    subject.set_lease(0.3)
    async with running(subject), asyncio.timeout(20):
        while await deadline(redis, record) >= before:  # noqa: ASYNC110  # Redis is asked, it does not tell
            await asyncio.sleep(0.01)


async def test_a_request_is_lost_when_its_gateway_is(redis: Redis, tmp_path: Path) -> None:
    subject = a_settlement(redis, Spool(tmp_path), lease_seconds=0.05)
    record = a_record(status="lost")
    await reserved(redis, subject, record)
    before = await deadline(redis, record)
    async with running(subject):
        await renewed(redis, record, after=before)
    async with asyncio.timeout(20):
        while not await leases.settle_expired(redis, ORG, grace_seconds=0):  # noqa: ASYNC110  # a poll
            await asyncio.sleep(0.01)
    await arrived(redis, [record])


async def test_after_an_outage_longer_than_a_lease_nothing_alive_is_taken_for_lost(
    own_redis_server: RedisServer, own: Redis, tmp_path: Path
) -> None:
    subject = a_settlement(own, Spool(tmp_path), renew_seconds=0.01)
    record = a_record(status="lost")
    await reserved(own, subject, record, lease_seconds=0.3)
    expires = await deadline(own, record)
    own_redis_server.pause()
    async with running(subject):
        await asyncio.sleep(0.4)  # the lease ends meanwhile, by Redis' clock
        own_redis_server.resume()
        worker = Redis(own_redis_server.url(), retry_seconds=0)
        assert await leases.settle_expired(worker, ORG) == 0
        await renewed(worker, record, after=expires + 10_000)
        assert await leases.settle_expired(worker, ORG, grace_seconds=0) == 0
        await worker.close()
    assert await stream(own) == []


async def test_many_requests_are_renewed_in_turns(redis: Redis, tmp_path: Path) -> None:
    subject = a_settlement(redis, Spool(tmp_path), notes_at_once=10)
    for _ in range(35):
        await reserved(redis, subject, a_record(status="lost"))
    await redis.call("DEL", redis_keys.deadlines_key(ORG))
    assert await subject._leases.renew()
    assert await redis.call("ZCARD", redis_keys.deadlines_key(ORG)) == 35


async def test_what_is_settled_is_asked_no_more(redis: Redis, tmp_path: Path) -> None:
    subject = a_settlement(redis, Spool(tmp_path))
    record = a_record()
    subject.begin(ORG, record.id, lambda: pytest.fail("it is over"))
    subject.settle(record, LIMITED)
    await subject.drain()
    assert await subject._leases.renew()


async def test_what_was_spooled_is_asked_no_more(own_redis_server: RedisServer, own: Redis, tmp_path: Path) -> None:
    own_redis_server.stop()
    subject = a_settlement(own, Spool(tmp_path))
    record = a_record()
    subject.begin(ORG, record.id, lambda: pytest.fail("it is over"))
    subject.settle(record, LIMITED)
    await subject.drain()
    await subject._leases.renew()


async def test_what_was_captured_goes_where_its_record_goes_and_is_dropped_first_where_space_is_short(
    redis: Redis, tmp_path: Path
) -> None:
    away = Redis("redis://127.0.0.1:1/0")
    spool = FullSpool(tmp_path)
    subject = Settlement(away, spool)
    with_room, without = a_record(content="full"), a_record(content="full")
    subject.settle(without, LIMITED, b"first content")
    await subject.drain()  # the disk is full: it stays in memory, without its content
    spool.is_full = False
    subject.settle(with_room, LIMITED, b"second content")
    await subject.drain()
    await away.close()
    again = Settlement(redis, spool)
    await again.spool.replay(lambda note: None)
    keys = [redis_keys.content_key("default", record.id) for record in (without, with_room)]
    assert await redis.call("MGET", *keys) == [None, b"second content"]
    assert await redis.call("XLEN", redis_keys.stream_key("default")) == 2
