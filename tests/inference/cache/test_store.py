"""Entries in a real Redis: stored, bounded, removed."""

from typing import Any

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.inference.cache.samples import store_entry

from quarterdeck.inference.cache import store
from quarterdeck.inference.cache.entry import Entry, encode
from quarterdeck.inference.cache.store import OVERHEAD_BYTES, CacheSize
from quarterdeck.net.redis import Redis

ORG = "default"
ENTRY = Entry(1.0, "m", b"x" * 600)
SIZE = len(encode(ENTRY)) + OVERHEAD_BYTES
ROOM_FOR_THREE = 3.5 * SIZE / store.MIB


async def keep(redis: Redis, key: str, entry: Entry = ENTRY, *, org: str = ORG, **bounds: Any) -> bool:
    return await store_entry(redis, org, key, entry, **({"ttl_seconds": 60, "max_mb": 1} | bounds))


async def there(redis: Redis, *keys: str) -> list[str]:
    return [key for key in keys if await store.fetch(redis, ORG, key) is not None]


async def test_what_is_stored_is_found_where_an_admission_looks(redis: Redis) -> None:
    assert await keep(redis, "k", ttl_seconds=36_000)
    assert await redis.call("GET", store.entry_key(ORG, "k")) == encode(ENTRY)
    assert 35_900_000 < await redis.call("PTTL", store.entry_key(ORG, "k")) <= 36_000_000
    assert await store.size(redis, ORG) == CacheSize(1, SIZE)


async def test_the_same_key_again_replaces(redis: Redis) -> None:
    await keep(redis, "k")
    longer = msgspec.structs.replace(ENTRY, body=ENTRY.body * 2)
    await keep(redis, "k", longer)
    assert await redis.call("GET", store.entry_key(ORG, "k")) == encode(longer)
    assert await store.size(redis, ORG) == CacheSize(1, len(encode(longer)) + OVERHEAD_BYTES)


async def test_what_would_expire_first_makes_room(redis: Redis) -> None:
    await keep(redis, "first", max_mb=ROOM_FOR_THREE)
    await keep(redis, "short", ttl_seconds=30, max_mb=ROOM_FOR_THREE)
    await keep(redis, "third", ttl_seconds=61, max_mb=ROOM_FOR_THREE)
    assert await keep(redis, "fourth", ttl_seconds=62, max_mb=ROOM_FOR_THREE)
    assert await there(redis, "first", "short", "third", "fourth") == ["first", "third", "fourth"]
    assert await store.size(redis, ORG) == CacheSize(3, 3 * SIZE)


async def test_an_entry_larger_than_all_room_is_not_kept_and_costs_nobody_his(redis: Redis) -> None:
    await keep(redis, "k")
    assert not await keep(redis, "large", max_mb=0.9 * SIZE / store.MIB)
    assert await there(redis, "k", "large") == ["k"]


async def expired(redis: Redis, key: str) -> None:
    await keep(redis, key, ttl_seconds=0.001)
    while await redis.call("EXISTS", store.entry_key(ORG, key)):
        pass


async def counted(redis: Redis) -> int:
    """Entries in the index, including expired ones."""
    return int(await redis.call("ZCARD", f"cache-index:{{{ORG}}}"))


async def test_what_has_expired_is_not_held(redis: Redis) -> None:
    await expired(redis, "old")
    await keep(redis, "new")
    assert await store.size(redis, ORG) == CacheSize(1, SIZE)
    assert await counted(redis) == 1


async def test_what_has_expired_makes_room_before_all_else(redis: Redis) -> None:
    await keep(redis, "first", ttl_seconds=30, max_mb=ROOM_FOR_THREE)
    await expired(redis, "second")
    await expired(redis, "third")
    assert await keep(redis, "fourth", max_mb=ROOM_FOR_THREE)
    assert await there(redis, "first", "fourth") == ["first", "fourth"]
    assert await store.size(redis, ORG) == CacheSize(2, 2 * SIZE)


async def test_what_has_expired_is_swept_out_while_there_is_room(redis: Redis) -> None:
    for number in range(10):
        await expired(redis, f"old{number}")
    for number in range(65536 // SIZE + 1):
        await keep(redis, f"new{number}")
    assert await counted(redis) == 65536 // SIZE + 1


async def test_where_there_are_many_some_go_at_once(redis: Redis) -> None:
    room = {"max_mb": 256.5 * SIZE / store.MIB}
    for number in range(256):
        await keep(redis, f"k{number}", ttl_seconds=60 + number, **room)
    assert await keep(redis, "new", ttl_seconds=600, **room)
    assert await store.size(redis, ORG) == CacheSize(252, 252 * SIZE)
    assert await there(redis, *(f"k{number}" for number in range(8)), "new") == ["k5", "k6", "k7", "new"]


async def test_a_larger_one_in_its_own_place_takes_room_as_any_other(redis: Redis) -> None:
    for key in ("a", "b", "c"):
        await keep(redis, key, max_mb=ROOM_FOR_THREE)
    longer = msgspec.structs.replace(ENTRY, body=ENTRY.body * 2)
    assert await keep(redis, "c", longer, max_mb=ROOM_FOR_THREE)
    held = await store.size(redis, ORG)
    assert held.bytes <= ROOM_FOR_THREE * store.MIB
    assert held.bytes == (held.entries - 1) * SIZE + len(encode(longer)) + OVERHEAD_BYTES
    assert await there(redis, "c") == ["c"]


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sampled_from("abcdefgh"), st.integers(0, 2000), st.integers(1, 99)), max_size=30))
async def test_the_sum_is_that_of_what_is_there(redis_url: str, stores: list[tuple[str, int, int]]) -> None:
    redis, most = Redis(redis_url), 5000
    await redis.call("FLUSHDB")
    for key, size, seconds in stores:
        entry = msgspec.structs.replace(ENTRY, body=b"x" * size)
        await keep(redis, key, entry, ttl_seconds=seconds, max_mb=most / store.MIB)
        found = [blob for each in "abcdefgh" if (blob := await store.fetch(redis, ORG, each)) is not None]
        held = await store.size(redis, ORG)
        assert held == CacheSize(len(found), sum(len(blob) + OVERHEAD_BYTES for blob in found))
        assert held.bytes <= most
    assert await store.purge(redis, ORG) == len(found) if stores else True
    assert await store.size(redis, ORG) == CacheSize(0, 0)
    await redis.close()


async def test_a_sum_without_entries_is_forgotten(redis: Redis) -> None:
    await redis.call("SET", "cache-bytes:{default}", 10**9)
    assert await keep(redis, "k")
    assert await store.size(redis, ORG) == CacheSize(1, SIZE)


async def test_what_an_earlier_version_has_kept_is_counted_and_goes(redis: Redis) -> None:
    """Stored as by a gateway of the previous version, which may still be running."""
    at = 1000 * int((await redis.call("TIME"))[0])
    for key, expires in (("gone", at - 1), ("there", at + 60_000)):
        await redis.call("SET", f"cache:{{default}}:{key}", "x" * 100)
        await redis.call("ZADD", "cache-index:{default}", expires, key)
        await redis.call("HSET", "cache-info:{default}", key, "500 org/m")
        await redis.call("INCRBY", "cache-bytes:{default}", 500)
    assert await store.size(redis, ORG) == CacheSize(1, 500)
    assert await keep(redis, "new", max_mb=(SIZE + 400) / store.MIB)
    assert await store.size(redis, ORG) == CacheSize(1, SIZE)
    assert await there(redis, "gone", "there", "new") == ["new"]


async def test_all_of_an_org_is_purged_and_nothing_of_another(redis: Redis) -> None:
    for number in range(30):
        await keep(redis, f"k{number}")
    await keep(redis, "k0", org="acme")
    assert await store.purge(redis, ORG) == 30
    assert await store.size(redis, ORG) == CacheSize(0, 0)
    assert await there(redis, "k0") == []
    assert await store.size(redis, "acme") == CacheSize(1, SIZE)


async def test_one_model_or_one_answer_is_purged(redis: Redis) -> None:
    await keep(redis, "a")
    await keep(redis, "b", msgspec.structs.replace(ENTRY, model="n"))
    await keep(redis, "c", msgspec.structs.replace(ENTRY, model="n"))
    assert await store.purge(redis, ORG, key="b", model="m") == 0
    assert await store.purge(redis, ORG, key="b") == 1
    assert await store.purge(redis, ORG, key="b") == 0
    assert await store.purge(redis, ORG, model="n") == 1
    assert await there(redis, "a", "b", "c") == ["a"]


async def test_keys_of_an_org_share_its_slot(redis: Redis) -> None:
    await keep(redis, "k")
    keys = await redis.call("KEYS", "*")
    assert len(keys) == 4 and all(b":{default}" in key for key in keys)
