"""What the worker says to Redis about streams: read as one of a group, take over from the dead, acknowledge.

An entry is delivered at least once. It stays pending with whoever took it until it is acknowledged, and is deleted in
the same moment; so the length of a stream is what is not done yet. Every script works on the keys of one org only.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from quarterdeck.accounting.scopes import rebuilding_key, stream_key
from quarterdeck.net.redis import Redis, RedisError, Script

LEDGER_GROUP = "ledger"
TRACES_GROUP = "traces"
FIELD = b"record"
REBUILDING_SECONDS = 0.02
"""Between two looks whether the budgets are counted: it takes as long as a sum in the database does."""


def traces_key(org: str) -> str:
    """Records that are in the ledger and wait for the trace sink."""
    return f"traces:{{{org}}}"


def dead_key(org: str) -> str:
    """Records that could not be read or entered. Nothing takes them away but `replay_dead`."""
    return f"ledger:{{{org}}}:dead"


_COMMIT = Script("""
-- KEYS ledger traces [rebuilding]; ARGV group most id*: acknowledge and delete; with most > 0 hand on to the traces,
-- the oldest of them giving way. Only who acknowledges hands on: of two workers with the same entry that is one.
-- {-1}: budgets are being counted anew, and who does that reads ledger and stream as one.
if KEYS[3] and redis.call('EXISTS', KEYS[3]) == 1 then return {-1} end
local most, done, dropped = tonumber(ARGV[2]), 0, 0
for i = 3, #ARGV do
  if redis.call('XACK', KEYS[1], ARGV[1], ARGV[i]) == 1 then
    done = done + 1
    if most > 0 then
      local entry = redis.call('XRANGE', KEYS[1], ARGV[i], ARGV[i])[1]
      if entry then redis.call('XADD', KEYS[2], '*', unpack(entry[2])) end
    end
    redis.call('XDEL', KEYS[1], ARGV[i])
  end
end
if most > 0 then dropped = redis.call('XTRIM', KEYS[2], 'MAXLEN', most) end
return {done, dropped}
""")

_BURY = Script("""
-- KEYS stream dead; ARGV group id reason: set one entry aside, whole, with the reason beside it
local entry = redis.call('XRANGE', KEYS[1], ARGV[2], ARGV[2])[1]
if redis.call('XACK', KEYS[1], ARGV[1], ARGV[2]) == 0 or not entry then return 0 end
redis.call('XADD', KEYS[2], '*', 'reason', ARGV[3], 'entry', ARGV[2], unpack(entry[2]))
redis.call('XDEL', KEYS[1], ARGV[2])
return 1
""")

_REPLAY = Script("""
-- KEYS dead stream; ARGV most: back to where they came from, without the reason
local count = 0
for _, entry in ipairs(redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', ARGV[1])) do
  local fields = {}
  for i = 1, #entry[2], 2 do
    if entry[2][i] ~= 'reason' and entry[2][i] ~= 'entry' then
      fields[#fields + 1] = entry[2][i]; fields[#fields + 1] = entry[2][i + 1]
    end
  end
  redis.call('XADD', KEYS[2], '*', unpack(fields))
  redis.call('XDEL', KEYS[1], entry[1])
  count = count + 1
end
return count
""")

_LEAVE = Script("""
-- KEYS stream; ARGV group name idle_ms: forget this consumer, and others that have been silent for idle_ms. One that
-- has entries pending stays: they would never be delivered again.
for _, consumer in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])) do
  local about = {}
  for i = 1, #consumer, 2 do about[consumer[i]] = consumer[i + 1] end
  if about.pending == 0 and (about.name == ARGV[2] or about.idle > tonumber(ARGV[3])) then
    redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], about.name)
  end
end
return 1
""")

_SILENT_MS = 24 * 3600 * 1000


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of a stream, and whose it is."""

    org: str
    id: bytes
    data: bytes | None
    """The record's bytes; None: there is no such field, or the entry was trimmed away."""


@dataclass(frozen=True, slots=True)
class Backlog:
    """How far behind a stream is."""

    entries: int
    age_seconds: float
    """Of the oldest entry; 0: there is none."""


class Consumer:
    """One member of a group, on every org's stream. `redis` is for commands that don't wait."""

    def __init__(self, redis: Redis, group: str, name: str, *, idle_ms: int) -> None:
        self._redis = redis
        self._group = group
        self._name = name
        self._idle_ms = idle_ms
        self._cursors: dict[str, bytes] = {}
        self._key = stream_key if group == LEDGER_GROUP else traces_key

    async def join(self, orgs: Sequence[str]) -> None:
        """Make the groups where they are not there: a new org, an emptied Redis. From the first entry on."""
        for org in orgs:
            try:
                await self._redis.call("XGROUP", "CREATE", self._key(org), self._group, "0", "MKSTREAM")
            except RedisError as error:
                if not str(error).startswith("BUSYGROUP"):
                    raise

    async def read(self, blocking: Redis, orgs: Sequence[str], *, count: int, block_ms: int) -> list[Entry]:
        """New entries; [] when none came in time. `blocking` is a connection on which nobody else waits."""
        keys = [self._key(org) for org in orgs]
        reply = await blocking.call(
            *("XREADGROUP", "GROUP", self._group, self._name, "COUNT", count, "BLOCK", block_ms),
            *("STREAMS", *keys, *([">"] * len(keys))),
        )
        org_of = dict(zip((key.encode() for key in keys), orgs, strict=True))
        return [entry for key, items in reply or () for entry in _entries(org_of[key], items)]

    async def claim(self, org: str, *, count: int) -> list[Entry]:
        """Entries that somebody took and has not acknowledged for long: dead, or about to find them done."""
        key = self._key(org)
        # From where the last look ended: Redis 6.2 keeps pending what was trimmed, and would show that again and again.
        cursor = self._cursors.get(org, b"0-0")
        words = ("XAUTOCLAIM", key, self._group, self._name, self._idle_ms, cursor, "COUNT", count)
        self._cursors[org], items, *_ = await self._redis.call(*words)
        return _entries(org, items)

    async def commit(self, org: str, ids: Sequence[bytes], *, traces: int = 0) -> int:
        """They are done. With `traces` they are handed on to at most so many; returns how many older ones gave way."""
        if not ids:
            return 0
        keys = (self._key(org), traces_key(org), *((rebuilding_key(org),) if self._group == LEDGER_GROUP else ()))
        # Redis is asked: the one who counts may be dead, then the key runs out
        while (answer := await self._redis.run(_COMMIT, keys, (self._group, traces, *ids)))[0] < 0:  # noqa: ASYNC110
            await asyncio.sleep(REBUILDING_SECONDS)
        return int(answer[1])

    async def bury(self, entry: Entry, reason: str) -> bool:
        """Set it aside. False: another worker did."""
        keys = (self._key(entry.org), dead_key(entry.org))
        return bool(await self._redis.run(_BURY, keys, (self._group, entry.id, reason)))

    async def leave(self, orgs: Sequence[str]) -> None:
        """Take this name off the groups."""
        for org in orgs:
            await self._redis.run(_LEAVE, (self._key(org),), (self._group, self._name, _SILENT_MS))


async def backlog(redis: Redis, key: str) -> Backlog:
    """Length and age of a stream, by Redis' own clock."""
    entries = await redis.call("XLEN", key)
    if not entries:
        return Backlog(0, 0.0)
    oldest = await redis.call("XRANGE", key, "-", "+", "COUNT", 1)
    seconds, micros = await redis.call("TIME")
    born = int(oldest[0][0].split(b"-")[0]) / 1000 if oldest else float(seconds)
    return Backlog(entries, max(0.0, int(seconds) + int(micros) / 1e6 - born))


async def replay_dead(redis: Redis, org: str) -> int:
    """Put what was set aside back into the stream, once its cause is gone. Returns how many."""
    total = 0
    while count := await redis.run(_REPLAY, (dead_key(org), stream_key(org)), (100,)):
        total += count
    return total


def _entries(org: str, items: Sequence[Any]) -> list[Entry]:
    """An entry that was trimmed while it was pending is nil, or has nil for its fields."""
    found = []
    for item in items:
        if item is None:
            continue
        id, fields = item
        pairs = dict(zip(fields[::2], fields[1::2], strict=True)) if fields else {}
        found.append(Entry(org, id, pairs.get(FIELD)))
    return found
