"""Redis streams of records: read as a member of a consumer group, claim entries of dead workers, acknowledge.

An entry is delivered at least once. It stays pending with its consumer until it is acknowledged, and is deleted at the
same time, so a stream's length is the number of unfinished entries. Every script uses the keys of one org only.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from quarterdeck.accounting.redis_keys import rebuilding_key, stream_key, tail_key, tailing_key
from quarterdeck.net.lua_scripts import PackagedScript
from quarterdeck.net.redis import Redis, RedisError, tag_of

LEDGER_GROUP = "ledger"
TRACES_GROUP = "traces"
FIELD = b"record"
REBUILDING_SECONDS = 0.02
"""Interval at which a commit checks whether a budget rebuild has ended; one takes as long as a sum in the database."""

POLL_SECONDS = 0.05
POLL_SECONDS_PER_ORG = 0.0005
"""Pause between two reads of all orgs' streams on a Redis Cluster: a 20th of a core for a thousand orgs."""


def traces_key(org: str) -> str:
    """Stream of records that are in the ledger and wait for the trace sink."""
    return f"traces:{{{org}}}"


def dead_key(org: str) -> str:
    """Stream of records that could not be read or inserted. Only `replay_dead` removes them."""
    return f"ledger:{{{org}}}:dead"


_COMMIT = PackagedScript("quarterdeck.worker", "commit")
_MOVE_TO_DEAD = PackagedScript("quarterdeck.worker", "move_to_dead")
_REPLAY = PackagedScript("quarterdeck.worker", "replay_dead")
_LEAVE = PackagedScript("quarterdeck.worker", "leave")
_IDLE_CONSUMER_MS = 24 * 3600 * 1000


@dataclass(frozen=True, slots=True)
class StreamEntry:
    """An entry of an org's stream."""

    org: str
    id: bytes
    data: bytes | None
    """The record's bytes; None if the entry has no such field or was trimmed."""


@dataclass(frozen=True, slots=True)
class Backlog:
    """The unfinished entries of a stream."""

    entries: int
    age_seconds: float
    """Age of the oldest entry; 0 without one."""


class Consumer:
    """A member of a consumer group on every org's stream. `redis` is for commands that don't block."""

    def __init__(
        self,
        redis: Redis,
        group: str,
        name: str,
        *,
        idle_ms: int,
        rebuilding_seconds: float = REBUILDING_SECONDS,
    ) -> None:
        """`idle_ms`: how long an entry must be pending before it is claimed from its consumer."""
        self._redis = redis
        self._group = group
        self._name = name
        self._idle_ms = idle_ms
        self._rebuilding_seconds = rebuilding_seconds
        self._cursors: dict[str, bytes] = {}
        self._is_sharded = False
        """Whether Redis refused a command with keys of several orgs."""
        self._key = stream_key if group == LEDGER_GROUP else traces_key

    async def join(self, orgs: Sequence[str]) -> None:
        """Create missing groups, for a new org or after Redis was emptied. They start at the first entry."""
        for org in orgs:
            try:
                await self._redis.call("XGROUP", "CREATE", self._key(org), self._group, "0", "MKSTREAM")
            except RedisError as error:
                if not str(error).startswith("BUSYGROUP"):
                    raise

    async def read(self, blocking: Redis, orgs: Sequence[str], *, count: int, block_ms: int) -> list[StreamEntry]:
        """Read new entries; [] if none arrived within `block_ms`. `blocking` is a connection for this read alone."""
        if len(orgs) > 1 and (blocking.is_cluster or self._is_sharded):
            return await self._poll(blocking, orgs, count, block_ms)
        keys = [self._key(org) for org in orgs]
        words = ("XREADGROUP", "GROUP", self._group, self._name, "COUNT", count, "BLOCK", block_ms)
        try:
            reply = await blocking.call(*words, "STREAMS", *keys, *([">"] * len(keys)))
        except RedisError as error:
            if not str(error).startswith("CROSSSLOT"):
                raise
            self._is_sharded = True  # a Cluster of one node, or behind a proxy that hides it
            return []
        org_of = dict(zip((key.encode() for key in keys), orgs, strict=True))
        return [entry for key, items in reply or () for entry in _entries(org_of[key], items)]

    async def _poll(self, redis: Redis, orgs: Sequence[str], count: int, block_ms: int) -> list[StreamEntry]:
        """`read` on a Redis Cluster, where a command can wait for keys of one org only: one read for each, repeated."""
        pause = max(POLL_SECONDS, POLL_SECONDS_PER_ORG * len(orgs))
        for _ in range(max(1, round(block_ms / 1000 / pause))):
            found = await asyncio.gather(*[self._read_now(redis, org, count) for org in orgs])
            if any(found):
                return [entry for entries in found for entry in entries]
            await asyncio.sleep(pause)
        return []

    async def _read_now(self, redis: Redis, org: str, count: int) -> list[StreamEntry]:
        key = self._key(org)
        words = ("XREADGROUP", "GROUP", self._group, self._name, "COUNT", count, "STREAMS", key, ">")
        return [entry for _, items in await redis.call(*words) or () for entry in _entries(org, items)]

    async def claim(self, org: str, *, count: int) -> list[StreamEntry]:
        """Claim entries that a consumer has not acknowledged within `idle_ms`. If it is alive, it finds them done."""
        key = self._key(org)
        # Continue at the last cursor: Redis 6.2 keeps trimmed entries pending and would return them each time.
        cursor = self._cursors.get(org, b"0-0")
        words = ("XAUTOCLAIM", key, self._group, self._name, self._idle_ms, cursor, "COUNT", count)
        self._cursors[org], items, *_ = await self._redis.call(*words)
        return _entries(org, items)

    async def commit(self, org: str, ids: Sequence[bytes], *, traces: int = 0) -> int:
        """Acknowledge and delete entries. With `traces` > 0, append them to the traces, trimmed to that many.

        Returns how many older traces were trimmed. Waits while a budget rebuild is running.
        """
        if not ids:
            return 0
        keys: tuple[str, ...] = (self._key(org), traces_key(org))
        if self._group == LEDGER_GROUP:
            keys += (rebuilding_key(org), tailing_key(org), tail_key(org))
        # polled: the worker that rebuilds may be dead, and then the key expires
        while (answer := await self._redis.run(_COMMIT, keys, (self._group, traces, *ids)))[0] < 0:  # noqa: ASYNC110
            await asyncio.sleep(self._rebuilding_seconds)
        return int(answer[1])

    async def move_to_dead(self, entry: StreamEntry, reason: str) -> bool:
        """Move an entry to the dead stream. False if another worker did."""
        keys = (self._key(entry.org), dead_key(entry.org))
        return bool(await self._redis.run(_MOVE_TO_DEAD, keys, (self._group, entry.id, reason)))

    async def leave(self, orgs: Sequence[str]) -> None:
        """Delete this consumer from its groups."""
        for org in orgs:
            await self._redis.run(_LEAVE, (self._key(org),), (self._group, self._name, _IDLE_CONSUMER_MS))


async def backlog(redis: Redis, key: str) -> Backlog:
    """Return length and age of a stream, by Redis' clock."""
    entries = await redis.call("XLEN", key)
    if not entries:
        return Backlog(0, 0.0)
    oldest = await redis.call("XRANGE", key, "-", "+", "COUNT", 1)
    seconds, micros = await redis.call("TIME", tag=tag_of(key))
    born = int(oldest[0][0].split(b"-")[0]) / 1000 if oldest else float(seconds)
    return Backlog(entries, max(0.0, int(seconds) + int(micros) / 1e6 - born))


async def replay_dead(redis: Redis, org: str) -> int:
    """Move an org's dead records back into its stream, once their cause is fixed. Returns how many."""
    total = 0
    while count := await redis.run(_REPLAY, (dead_key(org), stream_key(org)), (100,)):
        total += count
    return total


def _entries(org: str, items: Sequence[Any]) -> list[StreamEntry]:
    """Parse entries. One that was trimmed while it was pending is nil, or has nil fields."""
    found = []
    for item in items:
        if item is None:
            continue
        id, fields = item
        pairs = dict(zip(fields[::2], fields[1::2], strict=True)) if fields else {}
        found.append(StreamEntry(org, id, pairs.get(FIELD)))
    return found
