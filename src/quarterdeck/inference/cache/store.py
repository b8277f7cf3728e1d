"""The kept answers in Redis: bounded by an org's bytes, forgotten by age or by order.

*reserve* reads an entry (`entry_key`) in its own round trip; what is here happens after the answer. An org's keys carry
its hash tag: one key an entry, an index by the time at which each expires, their sizes and models, and the sum. What
would expire first makes room. An entry that has expired stays in the index until the next one is stored.
"""

from dataclasses import dataclass

from quarterdeck.inference.cache.entry import Entry, encode
from quarterdeck.store.redis import Redis, Script

MIB = 1024 * 1024
OVERHEAD_BYTES = 400
"""What Redis holds for an entry beside its bytes: its key, index and size."""
BATCH = 500
"""Entries looked at by one command of a purge."""


def entry_key(org: str, key: str) -> str:
    return f"cache:{{{org}}}:{key}"


def _keys(org: str) -> tuple[str, str, str]:
    return f"cache-index:{{{org}}}", f"cache-info:{{{org}}}", f"cache-bytes:{{{org}}}"


STORE = Script("""
-- KEYS index info bytes; ARGV prefix key entry ttl_ms max_bytes overhead model
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local function forget(key)
  local info = redis.call('HGET', KEYS[2], key)
  redis.call('ZREM', KEYS[1], key)
  redis.call('HDEL', KEYS[2], key)
  if info then redis.call('DECRBY', KEYS[3], string.match(info, '^%d+')) end
end
local size = #ARGV[3] + tonumber(ARGV[6])
local most = tonumber(ARGV[5])
if size > most then return 0 end
forget(ARGV[2])
for _, key in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, 100)) do forget(key) end
local held = tonumber(redis.call('GET', KEYS[3]) or '0')
-- bounded, as Redis serves nobody meanwhile: an entry that needs the room of more than this is not worth it
for _ = 1, 1000 do
  if held + size <= most then break end
  local first = redis.call('ZRANGE', KEYS[1], 0, 0)[1]
  if not first then redis.call('DEL', KEYS[3]) held = 0 break end
  redis.call('DEL', ARGV[1] .. first)
  forget(first)
  held = tonumber(redis.call('GET', KEYS[3]) or '0')
end
if held + size > most then redis.call('DEL', ARGV[1] .. ARGV[2]) return 0 end
redis.call('SET', ARGV[1] .. ARGV[2], ARGV[3], 'PX', ARGV[4])
redis.call('ZADD', KEYS[1], now + tonumber(ARGV[4]), ARGV[2])
redis.call('HSET', KEYS[2], ARGV[2], size .. ' ' .. ARGV[7])
redis.call('INCRBY', KEYS[3], size)
return 1
""")

FORGET = Script("""
-- KEYS index info bytes; ARGV prefix key*: how many answers are gone that would have been given
local gone = 0
for i = 2, #ARGV do
  gone = gone + redis.call('DEL', ARGV[1] .. ARGV[i])
  local info = redis.call('HGET', KEYS[2], ARGV[i])
  redis.call('ZREM', KEYS[1], ARGV[i])
  redis.call('HDEL', KEYS[2], ARGV[i])
  if info then redis.call('DECRBY', KEYS[3], string.match(info, '^%d+')) end
end
return gone
""")


@dataclass(frozen=True, slots=True)
class Held:
    """What an org's cache holds; entries that have expired since the last one was stored are still counted."""

    entries: int
    bytes: int


async def store(redis: Redis, org: str, key: str, entry: Entry, *, ttl_seconds: float, max_mb: float) -> bool:
    """Keep it. False: there is no room for it. Raises as `Redis.run`."""
    args = (
        *(entry_key(org, ""), key, encode(entry), round(ttl_seconds * 1000), round(max_mb * MIB)),
        *(OVERHEAD_BYTES, entry.model),
    )
    return bool(await redis.run(STORE, _keys(org), args))


async def fetch(redis: Redis, org: str, key: str) -> bytes | None:
    """An entry's bytes, outside an admission. Raises as `Redis.call`."""
    blob: bytes | None = await redis.call("GET", entry_key(org, key))
    return blob


async def held(redis: Redis, org: str) -> Held:
    index, _, size = _keys(org)
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
