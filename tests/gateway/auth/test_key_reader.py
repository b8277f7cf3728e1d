"""Reads of keys: shared by all who wait, and numbered as they start."""

import asyncio

import pytest
from tests.gateway.fakes import FakeKeys, key_row

from quarterdeck import ids
from quarterdeck.errors import ServiceUnavailableError
from quarterdeck.gateway.auth.key_reader import FIND_AT_ONCE, MAX_FINDS, KeyReader

DIGEST = ids.digest("secret")


@pytest.fixture
def keys() -> FakeKeys:
    return FakeKeys(secret=key_row(id="key_1"))


async def test_callers_who_wait_for_the_same_key_share_a_read(keys: FakeKeys) -> None:
    reader = KeyReader(keys)
    keys.gate.clear()
    tasks = [asyncio.create_task(reader.find(DIGEST)) for _ in range(5)]
    await asyncio.sleep(0)
    tasks[0].cancel()
    await asyncio.sleep(0)
    keys.gate.set()
    found = await asyncio.gather(*tasks[1:])
    assert [(number, row.id) for number, row in found if row] == [(1, "key_1")] * 4
    assert keys.asked == 1


async def test_reads_are_numbered_as_they_start(keys: FakeKeys) -> None:
    reader = KeyReader(keys)
    numbers = [(await reader.find(DIGEST))[0], (await reader.retrieve_all(["key_1"]))[0]]
    numbers.append((await reader.retrieve("key_1", org="default", revision=3))[0])
    assert numbers == [1, 2, 3]
    assert reader.started == 3


async def test_a_failed_read_fails_for_its_callers_and_not_for_the_next(keys: FakeKeys) -> None:
    reader = KeyReader(keys)
    keys.is_away = True
    found = await asyncio.gather(reader.find(DIGEST), reader.find(DIGEST), return_exceptions=True)
    assert [type(each).__mro__[1] for each in found] == [ServiceUnavailableError] * 2
    keys.is_away = False
    _, row = await reader.find(DIGEST)
    assert row is not None


async def test_background_work_of_a_name_runs_once_at_a_time_and_close_cancels_it(keys: FakeKeys) -> None:
    reader = KeyReader(keys)
    starts: list[int] = []

    async def work() -> None:
        starts.append(1)
        await asyncio.Event().wait()

    for _ in range(3):
        reader.in_background("due", work)
        await asyncio.sleep(0)
    assert starts == [1]
    async with asyncio.timeout(10):
        await reader.close()


async def test_keys_that_wait_are_read_together(keys: FakeKeys) -> None:
    reader = KeyReader(keys)
    keys.gate.clear()
    first = [asyncio.create_task(reader.find(ids.digest(f"first {n}"))) for n in range(MAX_FINDS)]
    for _ in first:
        await asyncio.sleep(0)
    unknown = [asyncio.create_task(reader.find(ids.digest(f"unknown {n}"))) for n in range(FIND_AT_ONCE - 1)]
    valid = asyncio.create_task(reader.find(DIGEST))
    await asyncio.sleep(0)
    keys.gate.set()
    number, row = await valid
    assert row is not None
    assert row.id == "key_1"
    assert all(found is None for _, found in await asyncio.gather(*first, *unknown))
    assert keys.asked == reader.started <= MAX_FINDS + 1
    assert number == reader.started, "its read started after it was asked for"


async def test_a_failed_read_fails_for_all_that_it_was_for(keys: FakeKeys) -> None:
    reader = KeyReader(keys)
    keys.is_away = True
    found = await asyncio.gather(*(reader.find(str(n)) for n in range(FIND_AT_ONCE + 1)), return_exceptions=True)
    assert all(isinstance(each, ServiceUnavailableError) for each in found)
    keys.is_away = False
    assert (await reader.find(DIGEST))[1] is not None


async def test_close_cancels_look_ups(keys: FakeKeys) -> None:
    reader = KeyReader(keys)
    keys.gate.clear()
    waiting = asyncio.create_task(reader.find(DIGEST))
    await keys.is_waited_for.wait()
    await reader.close()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    keys.gate.set()
    assert (await reader.find(DIGEST))[1] is not None


async def test_a_look_up_that_comes_as_the_last_query_ends_is_not_forgotten(keys: FakeKeys) -> None:
    """Its query has ended, but the event loop has not yet removed its task."""
    reader = KeyReader(keys)
    keys.gate.clear()
    tasks = []
    for n in range(MAX_FINDS):
        tasks.append(asyncio.create_task(reader.find(ids.digest(f"unknown {n}"))))
        while keys.asked <= n:  # noqa: ASYNC110  # each in a query of its own
            await asyncio.sleep(0)

    async def ask_late() -> None:
        await keys.gate.wait()  # woken in the same turn as the queries, after them
        _, row = await reader.find(DIGEST)
        assert row is not None

    tasks.append(asyncio.create_task(ask_late()))
    await asyncio.sleep(0)
    keys.gate.set()
    async with asyncio.timeout(20):
        await asyncio.gather(*tasks)
