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
from quarterdeck.net.redis import Redis, Script, pack_arguments

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


_DROP = """
-- KEYS index info bytes; ARGV[1] prefix: how many answers are gone that would have been given, and the bytes of all
local function drop(keys)
  if #keys == 0 then return 0, 0 end
  local entries, bytes = {}, 0
  for i, info in ipairs(redis.call('HMGET', KEYS[2], unpack(keys))) do
    entries[i] = ARGV[1] .. keys[i]
    if info then bytes = bytes + string.match(info, '^%d+') end
  end
  redis.call('ZREM', KEYS[1], unpack(keys))
  redis.call('HDEL', KEYS[2], unpack(keys))
  redis.call('DECRBY', KEYS[3], bytes)
  return redis.call('DEL', unpack(entries)), bytes
end
"""

STORE = Script(
    f"{_DROP}local overhead = {OVERHEAD_BYTES}"
    """
-- ARGV prefix ttl_ms max_bytes model now_ms (key entry)*: of each entry, whether it is kept
local most = tonumber(ARGV[3])
local function keep(key, entry)
  local size = #entry + overhead
  if size > most then return 0 end
  local held, _, freed = redis.call('INCRBY', KEYS[3], size)
  if held > most or held % 65536 < size then -- no room, or 64 KiB more than the last time
    _, freed = drop(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', ARGV[5], 'LIMIT', 0, 200))
    held = held - freed
  end
  -- bounded, as Redis serves nobody meanwhile: an entry that needs the room of more than this is not worth it
  for _ = 1, 10 do
    if held <= most then break end
    -- some at once, as that is cheaper; a 64th, as they would have been given
    local count = math.min(100, 1 + math.floor(redis.call('ZCARD', KEYS[1]) / 64))
    local first = redis.call('ZRANGE', KEYS[1], 0, count - 1)
    if #first == 0 then redis.call('SET', KEYS[3], size) held = size break end
    _, freed = drop(first)
    held = held - freed
  end
  if held > most then
    redis.call('DECRBY', KEYS[3], size)
    drop({key})
    return 0
  end
  redis.call('SET', ARGV[1] .. key, entry, 'PX', ARGV[2])
  if redis.call('ZADD', KEYS[1], ARGV[5] + ARGV[2], key) == 0 then
    local info = redis.call('HGET', KEYS[2], key)
    if info then redis.call('DECRBY', KEYS[3], string.match(info, '^%d+')) end
  end
  redis.call('HSET', KEYS[2], key, size .. ' ' .. ARGV[4])
  return 1
end
local kept = {}
for i = 6, #ARGV, 2 do kept[#kept + 1] = keep(ARGV[i], ARGV[i + 1]) end
return kept
"""
)

FORGET = Script(f"{_DROP}return (drop({{unpack(ARGV, 2)}}))")


@dataclass(frozen=True, slots=True)
class CacheSize:
    """The size of an organisation's cache."""

    entries: int
    bytes: int


def command_prefix(org: str, model: str, ttl_seconds: float, max_mb: float) -> bytes:
    """The first arguments of the commands that store answers of one model."""
    args = (entry_key(org, ""), round(ttl_seconds * 1000), round(max_mb * MIB), model)
    return pack_arguments("EVALSHA", STORE.sha, 3, *_keys(org), *args)


def pack_entry(key: str, entry: Entry) -> PackedEntry:
    """Encode an entry for `store_command`."""
    blob = encode(entry)
    return b"$%d\r\n%b\r\n$%d\r\n" % (len(key), key.encode(), len(blob)), blob, b"\r\n"


def store_command(prefix: bytes, entries: Sequence[PackedEntry]) -> bytes:
    """The command that stores the entries. Its reply has a 1 for each that was stored and a 0 for each that was not."""
    count, now = b"*%d\r\n" % (11 + 2 * len(entries)), b"$13\r\n%013d\r\n" % (time.time() * 1000)
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
