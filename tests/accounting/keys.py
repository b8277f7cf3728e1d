"""A key with limits, and what Redis holds for it: for tests of admission, commit and leases."""

import struct
from dataclasses import dataclass
from typing import Any

import msgspec
from tests.records import a_record

from quarterdeck.accounting import admission, commit, redis_keys
from quarterdeck.accounting.admission import Admission, Reservation
from quarterdeck.accounting.commit import Note
from quarterdeck.accounting.redis_keys import bucket_key
from quarterdeck.accounting.scopes import Scope, ScopeSet, is_limited
from quarterdeck.net.redis import Redis
from quarterdeck.record import RequestRecord, decode
from quarterdeck.settings.limits import Limits

ORG = "default"
TOKENS = Limits(tokens_per_minute=1000)


@dataclass(frozen=True)
class Bucket:
    """What a scope's limits had left at `at` (Redis' clock, ms); infinite: not limited."""

    at: float
    requests: float
    tokens: float
    running: int


async def read_bucket(redis: Redis, org: str, scope: str) -> Bucket | None:
    """None: nothing was counted in the last day."""
    data = await redis.call("GET", bucket_key(org, scope))
    if data is None:
        return None
    at, requests, tokens, running = struct.unpack("<4d", data)
    return Bucket(at, requests, tokens, int(running))


class Key:
    """A key with limits, and operations on it."""

    def __init__(self, redis: Redis, limits: Limits | None = None, name: str = "key_1") -> None:
        self.redis, self.limits, self.name = redis, limits or Limits(), name

    @property
    def scope_set(self) -> ScopeSet:
        return ScopeSet(ORG, (Scope(self.name, self.limits),) if is_limited(self.limits) else ())

    def record(self, **changes: Any) -> RequestRecord:
        return a_record(**({"key": self.name, "status": "lost", "input_tokens": 0, "output_tokens": 0} | changes))

    def note(self, **changes: Any) -> Note:
        return Note(self.record(**changes), self.scope_set.noted)

    def wants(self, tokens: int = 100, **changes: Any) -> Reservation:
        note = self.note(**changes)
        return Reservation(note.record.id, self.scope_set, msgspec.json.encode(note), tokens)

    async def reserve(self, tokens: int = 100) -> tuple[Reservation, Admission]:
        wanted = self.wants(tokens)
        return wanted, await admission.reserve(self.redis, wanted)

    async def settle(self, reservation: Reservation, used: int = 0, **changes: Any) -> bool:
        fields: dict[str, Any] = {"id": reservation.id, "key": self.name, "input_tokens": used, "output_tokens": 0}
        return await commit.settle(self.redis, a_record(**(fields | changes)), reservation.scope_set)

    async def bucket(self) -> Bucket | None:
        return await read_bucket(self.redis, ORG, self.name)

    async def level(self) -> float:
        bucket = await self.bucket()
        assert bucket is not None
        return bucket.tokens

    async def running(self) -> int:
        bucket = await self.bucket()
        assert bucket is not None
        return bucket.running

    async def rewind(self, milliseconds: int) -> None:
        """Move the bucket's time back."""
        bucket = await self.bucket()
        assert bucket is not None
        words = (bucket.at - milliseconds, bucket.requests, bucket.tokens, bucket.running)
        await self.redis.call("SET", bucket_key(ORG, self.name), struct.pack("<4d", *words))


async def stream(redis: Redis) -> list[str]:
    """The ids in the ledger's stream, in order."""
    entries = await redis.call("XRANGE", redis_keys.stream_key(ORG), "-", "+")
    return [decode(fields[1]).id for _, fields in entries]


async def in_flight(redis: Redis) -> tuple[int, int]:
    reservations = await redis.call("HLEN", redis_keys.reservations_key(ORG))
    return int(reservations), int(await redis.call("ZCARD", redis_keys.deadlines_key(ORG)))


async def expire(redis: Redis, *reservations: Reservation) -> None:
    """Let the leases of reservations end."""
    for reservation in reservations:
        await redis.call("ZADD", redis_keys.deadlines_key(ORG), "XX", 1, reservation.id)
