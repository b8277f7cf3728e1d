"""Settle: the commit of a request that is over.

One atomic script, idempotent by request id: it ends the reservation, returns what was not used, adds the cost to the
budgets and appends the record to `ledger:{org}`, from where the worker projects it.
"""

import struct
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import msgspec

from quarterdeck.accounting.admission import Reservation
from quarterdeck.accounting.redis_keys import content_key, settled_key
from quarterdeck.accounting.scopes import ScopeSet, settle_arguments
from quarterdeck.accounting.scripts import SETTLE
from quarterdeck.money import microdollars
from quarterdeck.net.redis import LENGTHS, Redis, pack_arguments
from quarterdeck.record import RequestRecord, encode

SETTLED_SECONDS = 600
"""How long a settled id is remembered, in case a settle is sent twice. Ten minutes: a repetition comes within seconds,
and an id takes some 140 bytes, so at 1,000 requests a second an hour would hold half a gigabyte. A later repetition
adds its cost to its budgets once more; its record meets the ledger's primary key."""
LOST_SECONDS = 86_400
"""How long one settled as `lost` is remembered: the spool of its gateway may turn up after a long outage and replaces
the estimate. There are few of them."""

CONTENT_SECONDS = 86_400
"""How long a captured content waits for the worker, which redacts it. A day: an outage of the worker over a night loses
none, and a forgotten one does not keep prompts in Redis."""
MAX_WAITING_CONTENTS = 5000
"""`content.max_waiting`, where a process other than the gateway settles."""

Arguments = tuple[str, bytes]
"""A request's id, and its words for SETTLE as they are sent."""
_NUMBERS = struct.Struct("<5d").pack
"""One word for five numbers: each word of a command costs both sides, more than the number does."""


class Note(msgspec.Struct, frozen=True, omit_defaults=True):
    """A request by which any process can settle it: in Redis while it is in flight, in a spool when it is over."""

    record: RequestRecord
    """In flight: with status `lost` and the tokens seen so far."""
    scopes: Mapping[str, str] = {}
    """`ScopeSet.noted`."""
    content: bytes | None = None
    """What was captured (`content.encode`). Only of a request that is over."""


async def settle(redis: Redis, record: RequestRecord, scope_set: ScopeSet, content: bytes | None = None) -> bool:
    """Commit the record, and what was captured beside it; False where it was committed before.

    Raises RedisUnavailableError and RedisError: the caller still has the record.
    """
    return bool(
        await redis.execute(SETTLE, settle_command([arguments_of(record)], scope_set, _only(content)), scope_set.org)
    )


async def settle_note(redis: Redis, note: Note) -> bool:
    """Commit the record of a note. Returns and raises as `settle`."""
    org = note.record.org
    command = _command(org, [arguments_of(note.record)], *settle_arguments(org, note.scopes), _only(note.content))
    return bool(await redis.execute(SETTLE, command, org))


async def release(redis: Redis, reservation: Reservation) -> None:
    """Return everything but the request, without a record: it was refused after it was admitted. Raises as `settle`."""
    scope_set = reservation.scope_set
    released = _packed(reservation.id, b"", _NUMBERS(SETTLED_SECONDS, 0, 0, 0, 0))
    command = _command(scope_set.org, [released], scope_set.settle_keys, scope_set.settle_plan)
    await redis.execute(SETTLE, command, scope_set.org)


def arguments_of(record: RequestRecord) -> Arguments:
    """A record as SETTLE takes it."""
    is_lost = record.status == "lost"
    seconds = LOST_SECONDS if is_lost else SETTLED_SECONDS
    money = microdollars(record.cost) if record.cost else 0
    used = record.input_tokens + record.output_tokens
    return _packed(record.id, encode(record), _NUMBERS(seconds, is_lost, used, money, int(record.started)))


def _packed(id: str, record: bytes, numbers: bytes) -> Arguments:
    """By hand: hiredis takes four times as long for a word."""
    name = id.encode()
    words = (LENGTHS[len(name)], name, b"\r\n", LENGTHS[len(record)], record, b"\r\n$40\r\n", numbers, b"\r\n")
    return id, b"".join(words)


def settle_command(
    requests: Sequence[Arguments],
    scope_set: ScopeSet,
    contents: Mapping[int, bytes] | None = None,
    *,
    max_waiting: int = MAX_WAITING_CONTENTS,
) -> bytes:
    """The packed command that settles requests (`arguments_of`) of one principal. If Redis fails in the middle, those
    before are settled; a repetition settles the others.

    `contents`: what was captured of some of them, by position from 1. It is dropped while `max_waiting` records wait
    for the worker.
    """
    return _command(scope_set.org, requests, scope_set.settle_keys, scope_set.settle_plan, contents, max_waiting)


def _only(content: bytes | None) -> Mapping[int, bytes] | None:
    return None if content is None else {1: content}


def _command(
    org: str,
    requests: Sequence[Arguments],
    keys: tuple[str, ...],
    plan: str,
    contents: Mapping[int, bytes] | None = None,
    max_waiting: int = MAX_WAITING_CONTENTS,
) -> bytes:
    of_requests = [(LENGTHS[len(key)], key, b"\r\n") for id, _ in requests if (key := settled_key(org, id).encode())]
    of_contents: list[str] = []
    last: list[Any] = []
    if contents is not None:
        of_contents = [content_key(org, requests[position - 1][0]) for position in contents]
        last = [*chain.from_iterable(contents.items()), len(contents), CONTENT_SECONDS, max_waiting]
    prefix = SETTLE.command_prefix(
        keys=len(keys) + len(requests) + len(of_contents), args=1 + 3 * len(requests) + len(last)
    )
    pieces = [prefix, pack_arguments(*keys), *chain.from_iterable(of_requests)]
    pieces += (pack_arguments(*of_contents, plan if contents is None else plan + "c"), *[each for _, each in requests])
    if last:
        pieces.append(pack_arguments(*last))
    return b"".join(pieces)
