"""Redis streams of records: read as a member of a consumer group, claim entries of dead workers, acknowledge.

An entry is delivered at least once. It stays pending with its consumer until it is acknowledged, and is deleted at the
same time, so a stream's length is the number of unfinished entries. Every script uses the keys of one org only.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from quarterdeck.accounting.redis_keys import rebuilding_key, stream_key, tail_key, tailing_key
from quarterdeck.net.lua_scripts import PackagedScript
from quarterdeck.net.redis import Redis, RedisError, tag_of
from quarterdeck.telemetry.traces.batches import TraceBatch

LEDGER_GROUP = "ledger"
TRACES_GROUP = "traces"
FIELD = b"record"
REBUILDING_SECONDS = 0.02
"""Interval at which a commit checks whether a budget rebuild has ended; one takes as long as a sum in the database."""

POLL_SECONDS = 0.05
POLL_SECONDS_PER_ORG = 0.0005
"""Pause between two reads of all orgs' streams on a Redis Cluster: a 20th of a core for a thousand orgs."""


def traces_key(org: str, sink: str) -> str:
    """Stream of batches of traces that wait for a sink. Their records are in the ledger."""
    return f"traces:{{{org}}}:{sink}"


def traces_size_key(org: str, sink: str) -> str:
    """Hash with the traces and bytes that wait for a sink."""
    return f"traces:{{{org}}}:{sink}:size"


def dead_key(org: str) -> str:
    """Stream of records that could not be read or inserted. Only `replay_dead` removes them."""
    return f"ledger:{{{org}}}:dead"


_COMMIT = PackagedScript("quarterdeck.worker", "commit")
_ACKNOWLEDGE = PackagedScript("quarterdeck.worker", "acknowledge")
_MOVE_TO_DEAD = PackagedScript("quarterdeck.worker", "move_to_dead")
_REPLAY = PackagedScript("quarterdeck.worker", "replay_dead")
_LEAVE = PackagedScript("quarterdeck.worker", "leave")
_IDLE_CONSUMER_MS = 24 * 3600 * 1000


class StreamEntry(msgspec.Struct, frozen=True, gc=False):  # a dataclass takes five times as long to make
    """An entry of an org's stream."""

    org: str
    id: bytes
    fields: list[bytes] | None
    """Names and values in turn. None: the entry was trimmed while it was pending."""

    @property
    def data(self) -> bytes | None:
        """The record's bytes; None if the entry has no such field or was trimmed."""
        return self.field(FIELD)

    def field(self, name: bytes) -> bytes | None:
        fields = self.fields
        if not fields:
            return None
        if fields[0] == name:
            return fields[1]
        return dict(zip(fields[::2], fields[1::2], strict=True)).get(name)


@dataclass(frozen=True, slots=True)
class Backlog:
    """The unfinished entries of a stream."""

    entries: int
    age_seconds: float
    """Age of the oldest entry; 0 without one."""


@dataclass(frozen=True, slots=True)
class TraceQueue:
    """What waits for one sink."""

    sink: str
    most_bytes: int
    """Of an org. Beyond it the oldest are dropped."""


class Consumer:
    """A member of a consumer group on every org's stream. `redis` is for commands that don't block."""

    def __init__(
        self,
        redis: Redis,
        group: str,
        name: str,
        *,
        idle_ms: int,
        key: Callable[[str], str] = stream_key,
        rebuilding_seconds: float = REBUILDING_SECONDS,
    ) -> None:
        """`key`: the stream of an org. `idle_ms`: how long an entry must be pending before it is claimed from its
        consumer."""
        self._redis = redis
        self._group = group
        self._name = name
        self._idle_ms = idle_ms
        self._rebuilding_seconds = rebuilding_seconds
        self._cursors: dict[str, bytes] = {}
        self._is_sharded = False
        """Whether Redis refused a command with keys of several orgs."""
        self._key = key

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

    async def commit(
        self, org: str, ids: Sequence[bytes], *, traces: Sequence[TraceBatch] = (), queues: Sequence[TraceQueue] = ()
    ) -> list[int]:
        """Acknowledge and delete records, and append their traces to the sinks' queues, all or nothing.

        Returns how many older traces were dropped, by queue. Waits while a budget rebuild is running.
        """
        if not ids:
            return [0] * len(queues)
        keys = [self._key(org), rebuilding_key(org), tailing_key(org), tail_key(org)]
        arguments: list[str | bytes | int] = [self._group, len(ids), *ids]
        for queue in queues:
            keys += (traces_key(org, queue.sink), traces_size_key(org, queue.sink))
            arguments.append(queue.most_bytes)
        for batch in traces:
            arguments += (batch.traces, batch.meta, batch.data, batch.about)
        # polled: the worker that rebuilds may be dead, and then the key expires
        while (answer := await self._redis.run(_COMMIT, keys, arguments))[0] < 0:  # noqa: ASYNC110
            await asyncio.sleep(self._rebuilding_seconds)
        return [int(dropped) for dropped in answer[1:]]

    async def waiting(self, entries: Sequence[tuple[str, bytes]]) -> list[bool]:
        """Whether entries, of an org by id, are still in their streams."""
        found = await asyncio.gather(*[self._redis.call("XRANGE", self._key(org), id, id) for org, id in entries])
        return [bool(each) for each in found]

    async def acknowledge(self, org: str, sink: str, sent: Sequence[tuple[bytes, int, int]]) -> None:
        """Delete batches that a sink has taken or refused: id, traces and bytes of each."""
        if sent:
            keys = (self._key(org), traces_size_key(org, sink))
            await self._redis.run(_ACKNOWLEDGE, keys, (self._group, *[value for each in sent for value in each]))

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


async def waiting_traces(redis: Redis, org: str, sink: str) -> int:
    """Traces that wait for a sink."""
    return int(await redis.call("HGET", traces_size_key(org, sink), "traces") or 0)


async def replay_dead(redis: Redis, org: str) -> int:
    """Move an org's dead records back into its stream, once their cause is fixed. Returns how many."""
    total = 0
    while count := await redis.run(_REPLAY, (dead_key(org), stream_key(org)), (100,)):
        total += count
    return total


def _entries(org: str, items: Sequence[Any]) -> list[StreamEntry]:
    """Parse entries. One that was trimmed while it was pending is nil, or has nil fields."""
    return [StreamEntry(org, item[0], item[1]) for item in items if item is not None]
