"""A spool whose disk is full: records go into reserved space, and new requests are refused until there is room."""

import asyncio
import errno
import os
import subprocess
from collections.abc import Iterator, Sequence
from decimal import Decimal
from pathlib import Path

import pytest
from tests.accounting.spending import a_bill, a_reservation, a_scope
from tests.inference.bench import Bench
from tests.inference.making import answer
from tests.net.upstream import Upstream, answering, response
from tests.servers import RedisServer

from quarterdeck.accounting.redis_keys import stream_key
from quarterdeck.accounting.scopes import ScopeSet
from quarterdeck.accounting.settlement import Settlement
from quarterdeck.errors import APIError, ServiceUnavailableError
from quarterdeck.net.http_client import HttpClient
from quarterdeck.net.redis import Redis
from quarterdeck.record import decode
from quarterdeck.store.spool import Spool

SCOPES = ScopeSet("default", (a_scope("key:key_1", 10**9),))


class FullSpool(Spool):
    """Its disk has no room but the reserved space."""

    is_full = False

    def _append(self, data: bytes) -> bool:
        if self.is_full:
            raise OSError(errno.ENOSPC, "no space left")
        return super()._append(data)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 400 KB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(folder)], check=False)
    if mounted.returncode:
        pytest.skip("mounting a file system needs root; the tests of FullSpool show the same without one")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def spooled(spool: Spool) -> list[bytes]:
    """All lines on disk, as another process would read them."""
    lines: list[bytes] = []
    while (taken := spool.take()) is not None:
        lines += spool.read(taken)
        spool.remove(taken)
    return lines


def test_records_go_into_reserved_space_when_the_disk_is_full(tmp_path: Path) -> None:
    spool = FullSpool(tmp_path, reserved_bytes=100)
    assert spool.reserve()
    spool.is_full = True
    assert not spool.append([b"a" * 40])
    assert not spool.append([b"b" * 40])
    with pytest.raises(OSError, match="no space"):
        spool.append([b"c" * 40])
    assert not spool.append([b"d"])
    assert spool.waiting() == 3
    spool.release_reserve()
    assert spooled(Spool(tmp_path)) == [b"a" * 40, b"b" * 40, b"d"]


def test_reserved_space_of_a_process_that_died_is_replayed_or_given_back(tmp_path: Path) -> None:
    died, unused = FullSpool(tmp_path, reserved_bytes=100), Spool(tmp_path, reserved_bytes=100)
    assert died.reserve()
    assert unused.reserve()
    died.is_full = True
    died.append([b"a"])
    other = Spool(tmp_path, reserved_bytes=100)
    assert other.take() is None, "its process lives"
    for spool in (died, unused):
        assert spool._reserve is not None
        os.close(spool._reserve)  # as at the end of a process
    assert other.reserve()
    assert len(list(tmp_path.glob("*.reserve"))) == 1
    assert spooled(other) == [b"a"]
    other.close()
    assert not list(tmp_path.iterdir())


async def settled(settlement: Settlement, count: int) -> Sequence[str]:
    ids = []
    for _ in range(count):
        bill = a_bill(a_reservation(SCOPES, 5), Decimal("0.000005"))
        ids.append(bill.id)
        settlement.settle(bill, SCOPES)
        await settlement.drain()
    return ids


@pytest.mark.parametrize("has_reserve", [True, False])
async def test_no_record_is_lost_on_a_full_disk(
    own_redis_server: RedisServer, tmp_path: Path, has_reserve: bool
) -> None:
    redis = Redis(own_redis_server.url(), retry_seconds=0.02)
    spool = FullSpool(tmp_path, reserved_bytes=1024 * 1024 if has_reserve else 0)
    settlement = Settlement(redis, spool, replay_seconds=0.05)
    running = asyncio.create_task(settlement.run())
    await asyncio.sleep(0.1)
    own_redis_server.stop()
    spool.is_full = True
    assert settlement.can_record
    ids = await settled(settlement, 20)
    assert not settlement.can_record
    assert settlement.spool_failures > 0
    assert (settlement.unsaved == 0) == has_reserve
    spool.is_full = False
    own_redis_server.start()
    async with asyncio.timeout(20):
        while not settlement.can_record:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    found = [decode(fields[1]).id for _, fields in await redis.call("XRANGE", stream_key("default"), "-", "+")]
    assert sorted(found) == sorted(ids)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await settlement.close()
    await redis.close()


async def test_requests_are_refused_while_their_records_could_be_saved_nowhere(
    own_redis_server: RedisServer, tmp_path: Path, small_disk: Path, client: HttpClient
) -> None:
    """300 chats: each that was answered has a record."""
    redis = Redis(own_redis_server.url(), retry_seconds=0.02)
    bench = Bench(redis, small_disk, client)
    await bench.settlement.spool.reserve()
    own_redis_server.stop()
    answered, refused = 0, 0
    async with Upstream(answering(*[response(answer())] * 300)) as engine:
        bench.add(engine)
        (small_disk / "other").write_bytes(b"x" * 200_000)
        for _ in range(300):
            try:
                await bench.ask()
            except ServiceUnavailableError as error:
                assert error.code == "records_unavailable"
                refused += 1
            except APIError:
                raise
            else:
                answered += 1
            await bench.settlement.drain()
    assert answered + refused == 300
    assert refused > 0
    assert not bench.settlement.unsaved
    await bench.settlement.close()
    assert len(spooled(Spool(small_disk))) == answered
    await bench.drain()
    await redis.close()


async def test_a_request_that_could_not_be_recorded_is_503(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Settlement, "can_record", False)
    async with Upstream(answering(response(answer()))) as engine:
        bench.add(engine)
        with pytest.raises(ServiceUnavailableError) as caught:
            await bench.ask()
        assert (caught.value.code, caught.value.retry_after) == ("records_unavailable", 1)
        assert not engine.requests
        assert bench.pipeline.gate.refused["records", "org"] == 1
