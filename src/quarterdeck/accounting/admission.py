"""Reserve before, settle after: what a request takes of its scopes' limits and budgets, and the record it leaves.

Two atomic scripts (`admission_scripts`). *Reserve* is one round trip: it takes a request, its estimated tokens, a place
and its estimated money from the key, the team and the org, all or nothing, and notes the request as under way; or it
gives the kept answer and takes a request only. *Settle* is the commit: idempotent by request id, it gives back what was
not used and appends the record to `ledger:{org}`. A reservation has a deadline that its gateway renews; the worker
settles those whose gateway died (`settle_expired`), status `lost`.

Time is Redis' own. Limits are token buckets: full at first, refilled evenly over the minute, so a scope may take at
most its limit at once and twice its limit in any one minute; beyond that by what its requests used more than they had
reserved. Money is counted in 10⁻⁶ $, rounded up with each request. At every admission spent + held + estimate is within
the amount, so a budget is exceeded by no more than what the requests under way cost beyond their estimates. A request
belongs to the period in which it was reserved: settled after that is over, it weighs on no later one.
"""

import logging
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import msgspec

from quarterdeck.accounting.scopes import (
    PERIODS,
    Counters,
    bucket_key,
    deadlines_key,
    money_key,
    reservations_key,
    revision_key,
    settle_words,
    stream_key,
)
from quarterdeck.accounting.scripts import EXPIRED, FORGET, RENEW, RESERVE, SETTLE
from quarterdeck.net.redis import Redis, pack_arguments
from quarterdeck.record import RequestRecord, encode, microdollars

__all__ = [
    "LEASE_SECONDS",
    "RESERVE",
    "SETTLE",
    "Admission",
    "Note",
    "Reservation",
    "deadlines_key",
    "read_admission",
    "release",
    "renew",
    "reservations_key",
    "reserve",
    "reserve_command",
    "revision_key",
    "settle",
    "settle_command",
    "settle_expired",
    "stream_key",
    "words_of",
]

log = logging.getLogger(__name__)

LEASE_SECONDS = 60.0
"""How long a reservation outlives its gateway's last renewal (each third of it), where nothing else is said."""
GRACE_SECONDS = 5
"""How long a gateway has to renew a reservation that was found expired: more than it needs to notice that a Redis which
was away for longer than a lease is back."""
SETTLED_SECONDS = 600
"""How long a settled id is remembered, for a settle that is sent twice. Ten minutes: a repetition comes after seconds,
and an id takes some 140 bytes, so at 1,000 requests a second an hour would hold half a gigabyte. A later one adds its
cost to its budgets once more, and its record meets the ledger's primary key."""
GUESSED_SECONDS = 86_400
"""The same for one that was settled as `lost`: its gateway's spool may turn up after a long outage, and takes the guess
back. They are few."""

Keys = tuple[str, ...]
Words = tuple[Any, ...]
Refusal = Literal["requests", "tokens", "concurrent", "money", "cold", "full"]
"""cold: the budget can't be trusted until the worker has counted; full: too many records wait for the worker."""


class Note(msgspec.Struct, frozen=True):
    """What Redis keeps of a request under way, and the spool of one that is over: enough for another to settle it."""

    record: RequestRecord
    """Under way: with status `lost` and the tokens seen so far."""
    scopes: Mapping[str, str] = {}
    """`Counters.noted`."""


class Reservation(msgspec.Struct):
    """What *reserve* takes."""

    id: str
    counters: Counters
    note: bytes
    """For the worker, should the gateway die now (`forms.py`)."""
    tokens: int = 0
    """An estimate."""
    money: int = 0
    """An estimate in 10⁻⁶ $ (`pricing.estimated_cost`). 0: it is free, and asks no budget."""
    lease_seconds: float = LEASE_SECONDS
    cache_key: str | None = None
    """The whole key of an answer that may be kept (`cache.store.entry_key`)."""
    most_waiting: int = 0
    """Records that may wait for the worker before requests with a budget are refused. 0: any number."""


class Admission(msgspec.Struct):
    """What *reserve* answers."""

    refused: Refusal | None
    """None: admitted. Else what refused it, `scope` says whose."""
    revision: int
    """The org's revision: a gateway that holds an older copy of the key reads it again."""
    scope: str = ""
    requests_left: int = -1
    """Of the scope with the fewest, or of the one that refused; -1: not counted."""
    requests_limit: int = 0
    tokens_left: int = -1
    tokens_limit: int = 0
    places: int = 0
    """Of the scope whose requests at once are all under way, where that refused."""
    retry_after_ms: int = 0
    warned: str = ""
    """The scope whose budget is exhausted and only warns."""
    cached: bytes | None = None
    """The kept answer: nothing is reserved, only a request taken."""


async def reserve(redis: Redis, wanted: Reservation) -> Admission:
    """Take it, or say what refuses. Raises RedisUnavailableError."""
    (answer,) = await redis.execute(RESERVE, reserve_command([wanted]))
    return read_admission(answer, wanted.counters)


def reserve_command(wanted: Sequence[Reservation]) -> bytes:
    """What runs RESERVE for requests of one principal, one after the other. It answers each (`read_admission`)."""
    first = wanted[0]
    counters = first.counters
    looks: list[str] = []
    words: list[Any] = [counters.limits_plan, int(first.lease_seconds * 1000), first.most_waiting]
    for each in wanted:
        if each.cache_key is not None:
            looks.append(each.cache_key)
        words += (each.id, each.note, each.tokens, each.money, 0 if each.cache_key is None else 1)
    head = RESERVE.command_prefix(keys=counters.reserve_keys_count + len(looks), args=len(words))
    return head + counters.reserve_keys + pack_arguments(*looks, *words)


def read_admission(answer: Any, counters: Counters) -> Admission:
    """What RESERVE said of one request."""
    if type(answer) is int:
        return Admission(None, answer)
    word, revision, scope, requests_left, requests_scope, tokens_left, tokens_scope, retry, warned, *blob = answer
    scopes = counters.scopes
    admitted = Admission(None, revision, "", requests_left, 0, tokens_left)
    if requests_scope:
        admitted.requests_limit = scopes[requests_scope - 1].limits.requests_per_minute or 0
    if tokens_scope:
        admitted.tokens_limit = scopes[tokens_scope - 1].limits.tokens_per_minute or 0
    if word == b"ok":
        if warned:
            admitted.warned = scopes[warned - 1].id
        if blob:
            admitted.cached = blob[0]
        return admitted
    admitted.refused, admitted.retry_after_ms = cast(Refusal, word.decode()), retry
    if scope:
        admitted.scope, admitted.places = scopes[scope - 1].id, scopes[scope - 1].limits.concurrent_requests or 0
    return admitted


async def settle(redis: Redis, record: RequestRecord, counters: Counters) -> bool:
    """Commit the record; False where it was committed before. Raises RedisUnavailableError: the caller keeps it."""
    return bool(await redis.execute(SETTLE, settle_command([words_of(record)], counters)))


def words_of(record: RequestRecord) -> Words:
    """What SETTLE is told of a request that is over."""
    used = record.input_tokens + record.output_tokens
    seconds = GUESSED_SECONDS if record.status == "lost" else SETTLED_SECONDS
    money = microdollars(record.cost) if record.cost else 0
    return (record.id, seconds, record.status, encode(record), used, money, int(record.started))


def settle_command(requests: Sequence[Words], counters: Counters) -> bytes:
    """What runs SETTLE for requests (`words_of`) of one principal. An error of Redis' in their midst leaves those
    before it settled; whoever repeats it does the others."""
    return _settlement(counters.org, requests, counters.settle_keys, counters.plan)


async def settle_note(redis: Redis, note: Note) -> bool:
    """The same by what a note tells."""
    org = note.record.org
    return bool(await redis.execute(SETTLE, _settlement(org, [words_of(note.record)], *settle_words(org, note.scopes))))


async def release(redis: Redis, reservation: Reservation) -> None:
    """Give everything back but the request, and leave no record: it was refused after it was admitted."""
    counters = reservation.counters
    words: Words = (reservation.id, SETTLED_SECONDS, "released", b"", 0, 0, 0)
    await redis.execute(SETTLE, _settlement(counters.org, [words], counters.settle_keys, counters.plan))


async def renew(
    redis: Redis, org: str, notes: Sequence[tuple[str, Note]], *, lease_seconds: float = LEASE_SECONDS
) -> None:
    """Tell Redis that these requests are still under way, and how far."""
    words: list[Any] = [round(lease_seconds * 1000)]
    for request_id, note in notes:
        words += (request_id, msgspec.json.encode(note))
    await redis.run(RENEW, (reservations_key(org), deadlines_key(org)), words)


async def settle_expired(redis: Redis, org: str, *, most: int = 100) -> int:
    """Settle requests whose gateway died, as `lost` at the tokens last seen. Returns how many. Repeatable.

    One is settled when it is found expired for the second time, GRACE_SECONDS after the first.
    """
    keys = (reservations_key(org), deadlines_key(org))
    found = await redis.run(EXPIRED, keys, (most, int(GRACE_SECONDS * 1000)))
    count = 0
    for request_id, data in zip(found[::2], found[1::2], strict=True):
        try:
            note = msgspec.json.decode(data, type=Note)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            log.error("the reservation of %s can't be read and is dropped: %s", request_id.decode(), error)
            await redis.run(FORGET, keys, (request_id,))
            continue
        count += await settle_note(redis, note)
    return count


def _settlement(org: str, requests: Sequence[Words], keys: Keys, plan: str) -> bytes:
    words: list[Any] = [plan]
    for each in requests:
        words += each
    return SETTLE.command((*keys, *[f"settled:{{{org}}}:{each[0]}" for each in requests]), words)


# what is counted, for those who look


@dataclass(frozen=True, slots=True)
class Bucket:
    """A scope's limits, as they were at `at` (Redis' clock, ms); infinite: not limited."""

    at: float
    requests: float
    tokens: float
    running: int


@dataclass(frozen=True, slots=True)
class Money:
    """A scope's budget in its period, in 10⁻⁶ $."""

    kind: str
    period: int
    spent: int
    held: int
    is_cold: bool
    """What was spent before is not counted in yet."""


async def read_bucket(redis: Redis, org: str, scope: str) -> Bucket | None:
    """None: nothing has been counted for a day."""
    data = await redis.call("GET", bucket_key(org, scope))
    if data is None:
        return None
    at, requests, tokens, running = struct.unpack("<4d", data)
    return Bucket(at, requests, tokens, int(running))


async def read_money(redis: Redis, org: str, scope: str) -> Money | None:
    """As it was last written: its period may be over. None: no request with a price has come yet."""
    data = await redis.call("GET", money_key(org, scope))
    if data is None:
        return None
    kind, period, spent, held, cold = struct.unpack("<5d", data)
    return Money(PERIODS[int(kind)], int(period), int(spent), int(held), bool(cold))
