"""The kept answers in Redis: bounded by an org's bytes, forgotten by age or by order.

*reserve* reads an entry (`entry_key`) in its own round trip; what is here happens after the answer. An org's keys carry
its hash tag: one key an entry, an index by the time at which each expires, their sizes and models, and the sum. What
would expire first makes room. An entry that has expired stays in the index until somebody sweeps it out: a store, once
in some, or who asks what is held.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

from quarterdeck.inference.cache.entry import Entry, encode
from quarterdeck.net.redis import Redis, Script, pack_arguments

Words = tuple[bytes, bytes, bytes]

MIB = 1024 * 1024
OVERHEAD_BYTES = 400
"""What Redis holds for an entry beside its bytes: its key, index and size."""
BATCH = 500
"""Entries looked at by one command of a purge."""


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
class Held:
    """What an org's cache holds."""

    entries: int
    bytes: int


def beginning(org: str, model: str, ttl_seconds: float, max_mb: float) -> bytes:
    """What the commands begin with that store answers of one model."""
    args = (entry_key(org, ""), round(ttl_seconds * 1000), round(max_mb * MIB), model)
    return pack_arguments("EVALSHA", STORE.sha, 3, *_keys(org), *args)


def words_of(key: str, entry: Entry) -> Words:
    """An entry, as it stands in a command; in parts, as it may be long."""
    blob = encode(entry)
    return b"$%d\r\n%b\r\n$%d\r\n" % (len(key), key.encode(), len(blob)), blob, b"\r\n"


def store_command(begin: bytes, entries: Sequence[Words]) -> bytes:
    """What stores them; it answers of each whether it is kept."""
    count, now = b"*%d\r\n" % (11 + 2 * len(entries)), b"$13\r\n%013d\r\n" % (time.time() * 1000)
    return b"".join((count, begin, now, *chain.from_iterable(entries)))


async def store(redis: Redis, org: str, key: str, entry: Entry, *, ttl_seconds: float, max_mb: float) -> bool:
    """Keep it. False: there is no room for it. Raises as `Redis.run`."""
    command = store_command(beginning(org, entry.model, ttl_seconds, max_mb), [words_of(key, entry)])
    (is_kept,) = await redis.execute(STORE, command)
    return bool(is_kept)


async def fetch(redis: Redis, org: str, key: str) -> bytes | None:
    """An entry's bytes, outside an admission. Raises as `Redis.call`."""
    blob: bytes | None = await redis.call("GET", entry_key(org, key))
    return blob


async def held(redis: Redis, org: str) -> Held:
    """Without what has expired: that is forgotten by the way. Raises as `Redis.call`."""
    index, _, size = _keys(org)
    while expired := await redis.call("ZRANGEBYSCORE", index, "-inf", int(time.time() * 1000), "LIMIT", 0, BATCH):
        await _forget(redis, org, expired, None)
    return Held(int(await redis.call("ZCARD", index)), int(await redis.call("GET", size) or 0))


async def purge(redis: Redis, org: str, *, model: str | None = None, key: str | None = None) -> int:
    """Forget an org's answers: all, one model's, or one. Returns how many. Raises as `Redis.call`.

    Not atomic: an answer that is under way meanwhile may be kept after it.
    """
    _, info, _ = _keys(org)
    if key is not None:
        return await _forget(redis, org, [key.encode()], model)
    gone, cursor = 0, b"0"
    while True:
        cursor, found = await redis.call("HSCAN", info, cursor, "COUNT", BATCH)
        pairs = zip(found[::2], found[1::2], strict=True)
        gone += await _forget(redis, org, [k for k, about in pairs if model is None or _model(about) == model], None)
        if cursor == b"0":
            return gone


async def _forget(redis: Redis, org: str, keys: list[bytes], model: str | None) -> int:
    if model is not None:
        keys = [k for k in keys if (about := await redis.call("HGET", _keys(org)[1], k)) and _model(about) == model]
    if not keys:
        return 0
    return int(await redis.run(FORGET, _keys(org), (entry_key(org, ""), *keys)))


def _model(about: bytes) -> str:
    return about.partition(b" ")[2].decode()
