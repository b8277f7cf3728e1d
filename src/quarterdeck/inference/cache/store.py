"""Cached answers in Redis, with a limit in bytes per organisation.

The *reserve* script reads an entry (`entry_key`) as part of an admission; everything here happens outside of one. An
organisation's keys share its hash tag: a key per entry, an index by expiry time, the sizes and models, and the total
size. If there is no room, the entries that expire first are removed. Expired entries stay in the index until they are
swept out: by every so many stores, and by `size`.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

from quarterdeck.inference.cache.entry import Entry, encode
from quarterdeck.net.lua_scripts import PackagedScript
from quarterdeck.net.redis import Redis, pack_arguments

PackedEntry = tuple[bytes, bytes, bytes]
"""An entry as part of a command, in pieces, because it may be large."""

MIB = 1024 * 1024
OVERHEAD_BYTES = 400
"""Memory that Redis uses for an entry besides its bytes: its key, index and size."""
BATCH = 500
"""Entries per command of a purge."""


def entry_key(org: str, key: str) -> str:
    return f"cache:{{{org}}}:{key}"


def _keys(org: str) -> tuple[str, str, str]:
    return f"cache-index:{{{org}}}", f"cache-info:{{{org}}}", f"cache-bytes:{{{org}}}"


STORE = PackagedScript("quarterdeck.inference.cache", "store")
FORGET = PackagedScript("quarterdeck.inference.cache", "forget")


@dataclass(frozen=True, slots=True)
class CacheSize:
    """The size of an organisation's cache."""

    entries: int
    bytes: int


def command_prefix(org: str, model: str, ttl_seconds: float, max_mb: float) -> bytes:
    """The first arguments of the commands that store answers of one model."""
    args = (entry_key(org, ""), round(ttl_seconds * 1000), round(max_mb * MIB), model, OVERHEAD_BYTES)
    return pack_arguments("EVALSHA", STORE.sha, 3, *_keys(org), *args)


def pack_entry(key: str, entry: Entry) -> PackedEntry:
    """Encode an entry for `store_command`."""
    blob = encode(entry)
    return b"$%d\r\n%b\r\n$%d\r\n" % (len(key), key.encode(), len(blob)), blob, b"\r\n"


def store_command(prefix: bytes, entries: Sequence[PackedEntry]) -> bytes:
    """The command that stores the entries. Its reply has a 1 for each that was stored and a 0 for each that was not."""
    count, now = b"*%d\r\n" % (12 + 2 * len(entries)), b"$13\r\n%013d\r\n" % (time.time() * 1000)
    return b"".join((count, prefix, now, *chain.from_iterable(entries)))


async def fetch(redis: Redis, org: str, key: str) -> bytes | None:
    """A stored entry, outside an admission. Raises as `Redis.call`."""
    blob: bytes | None = await redis.call("GET", entry_key(org, key))
    return blob


async def size(redis: Redis, org: str) -> CacheSize:
    """The size without expired entries, which are swept out. Raises as `Redis.call`."""
    index, _, total = _keys(org)
    while expired := await redis.call("ZRANGEBYSCORE", index, "-inf", int(time.time() * 1000), "LIMIT", 0, BATCH):
        await _remove(redis, org, expired, None)
    return CacheSize(int(await redis.call("ZCARD", index)), int(await redis.call("GET", total) or 0))


async def purge(redis: Redis, org: str, *, model: str | None = None, key: str | None = None) -> int:
    """Remove an organisation's answers: all, those of a model, or one. Returns how many. Raises as `Redis.call`.

    Not atomic: an answer that is in progress may be stored after it.
    """
    infos = _keys(org)[1]
    if key is not None:
        return await _remove(redis, org, [key.encode()], model)
    removed, cursor = 0, b"0"
    while True:
        cursor, found = await redis.call("HSCAN", infos, cursor, "COUNT", BATCH)
        pairs = zip(found[::2], found[1::2], strict=True)
        keys = [k for k, info in pairs if model is None or _model(info) == model]
        removed += await _remove(redis, org, keys, None)
        if cursor == b"0":
            return removed


async def _remove(redis: Redis, org: str, keys: list[bytes], model: str | None) -> int:
    if model is not None:
        keys = [k for k in keys if (info := await redis.call("HGET", _keys(org)[1], k)) and _model(info) == model]
    if not keys:
        return 0
    return int(await redis.run(FORGET, _keys(org), (entry_key(org, ""), *keys)))


def _model(info: bytes) -> str:
    return info.partition(b" ")[2].decode()
