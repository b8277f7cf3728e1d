"""Reserve: admits a request against the limits and budgets of its scopes, in one atomic round trip to Redis.

*Reserve* takes a request, its estimated tokens, a slot and its estimated money from the key, the team and the org, all
or nothing, and stores the request as in flight; or it returns a cached answer and takes a request only. *Settle*
(`commit`) corrects the estimates and appends the record. A reservation has a deadline that its gateway renews; the
worker settles those whose gateway died (`leases`).

Time is Redis' own. Limits are token buckets, full at first and refilled evenly over the minute: a scope may take at
most its limit at once and twice its limit in any one minute, plus what its requests used beyond their reservations.
Money is counted in 10⁻⁶ $, each request rounded up. At every admission spent + held + estimate is within the amount, so
a budget is exceeded by no more than what the requests in flight cost beyond their estimates. A request belongs to the
period in which it was reserved: settled after that period, it counts in no later one."""

import struct
from collections.abc import Sequence
from typing import Any, Literal, cast

import msgspec

from quarterdeck.accounting.redis_keys import cold_key, money_key, reservations_key
from quarterdeck.accounting.scopes import ScopeSet
from quarterdeck.accounting.scripts import EXTEND, RESERVE
from quarterdeck.net.redis import LENGTHS, Redis, pack_arguments

LEASE_SECONDS = 60.0
"""How long a reservation outlives its gateway's last renewal. Gateways renew each third of it."""

Refusal = Literal["requests", "tokens", "concurrent", "money", "cold", "full"]
"""cold: the budget is unknown until the worker has counted it; full: too many records wait for the worker."""


_NUMBERS = struct.Struct("<3d").pack
"""One word for three numbers: each word of a command costs both sides, more than the number does."""


class Reservation(msgspec.Struct):
    """A request as *reserve* takes it."""

    id: str
    scope_set: ScopeSet
    note: bytes
    """A `commit.Note` in JSON, by which the worker settles the request if the gateway dies."""
    tokens: int = 0
    """An estimate."""
    money: int = 0
    """An estimate in 10⁻⁶ $ (`pricing.estimated_cost`). 0: the request is free and no budget is checked."""
    lease_seconds: float = LEASE_SECONDS
    cache_key: str | None = None
    """The Redis key of an answer that may be cached (`cache.store.entry_key`)."""
    most_waiting: int = 0
    """Records that may wait for the worker before requests with a price are refused. 0: any number."""


class Admission(msgspec.Struct):
    """The result of *reserve*."""

    refused: Refusal | None
    """Why it was refused, by `scope`. None: admitted."""
    revision: int
    """The org's revision: a gateway with an older copy of the key reads it again."""
    scope: str = ""
    requests_left: int = -1
    """Of the scope with the fewest, or of the one that refused; -1: not counted."""
    requests_limit: int = 0
    tokens_left: int = -1
    tokens_limit: int = 0
    places: int = 0
    """The limit on concurrent requests, where that refused."""
    retry_after_ms: int = 0
    """Of a refusal by a limit. Other errors have a Retry-After by their code."""
    warned: str = ""
    """A scope whose budget is exhausted and only warns."""
    money_left: int = 0
    """Of the budget that refused, in 10⁻⁶ $."""
    money_held: int = 0
    """What requests in flight hold of that budget, in 10⁻⁶ $."""
    granted: int = 0
    """What this gateway grants of the limit that refused, while Redis is away. 0: all of it."""
    cached: bytes | None = None
    """The cached answer: nothing is reserved, only a request taken."""


async def reserve(redis: Redis, wanted: Reservation) -> Admission:
    """Admit one request. Raises RedisUnavailableError and RedisError."""
    (answer,) = await redis.execute(RESERVE, reserve_command([wanted]), wanted.scope_set.org)
    return read_admission(answer, wanted.scope_set)


async def extend(redis: Redis, scope_set: ScopeSet, request_id: str, money: int) -> Admission:
    """Hold `money` in all for a request in flight, as it goes to a dearer model. Refused, it keeps what it has. Raises
    RedisUnavailableError and RedisError."""
    org, scopes = scope_set.org, scope_set.scopes
    keys = (reservations_key(org), cold_key(org), *[money_key(org, scope.id) for scope in scopes])
    word, scope, left, held = await redis.run(EXTEND, keys, (request_id, scope_set.reserve_plan, money))
    if word == b"ok":
        return Admission(None, 0)
    # Without a reservation the request was settled as lost: nothing would be held for what it costs from here on.
    refused: Refusal = "money" if word == b"money" else "cold"
    return Admission(refused, 0, scopes[scope - 1].id if scope else "org", money_left=left, money_held=held)


def reserve_command(wanted: Sequence[Reservation]) -> bytes:
    """The packed command that reserves requests of one principal, in this order. Redis replies with a list, one answer
    for each (`read_admission`)."""
    first = wanted[0]
    scope_set = first.scope_set
    looking = 0
    keys: list[bytes] = []
    requests: list[bytes] = []
    for each in wanted:  # by hand: hiredis takes four times as long for a word
        cache_key, id, note = each.cache_key, each.id.encode(), each.note
        if cache_key is not None:
            looking += 1
            key = cache_key.encode()
            keys += (LENGTHS[len(key)], key, b"\r\n")
        numbers = _NUMBERS(each.tokens, each.money, cache_key is not None)
        requests += (LENGTHS[len(id)], id, b"\r\n", LENGTHS[len(note)], note, b"\r\n$24\r\n", numbers, b"\r\n")
    prefix = RESERVE.command_prefix(keys=scope_set.reserve_keys_count + looking, args=3 + 3 * len(wanted))
    shared = pack_arguments(scope_set.reserve_plan, int(first.lease_seconds * 1000), first.most_waiting)
    return b"".join((prefix, scope_set.reserve_keys, *keys, shared, *requests))


def read_admission(answer: Any, scope_set: ScopeSet) -> Admission:
    """RESERVE's answer for one request."""
    if type(answer) is int:
        return Admission(None, answer)
    word, revision, scope, requests_left, requests_scope, tokens_left, tokens_scope, retry, warned, *blob = answer
    scopes = scope_set.scopes
    admitted = Admission(None, revision, "", requests_left, 0, tokens_left)
    if requests_scope:
        admitted.requests_limit = scopes[requests_scope - 1].requests_limit
    if tokens_scope:
        admitted.tokens_limit = scopes[tokens_scope - 1].tokens_limit
    if word == b"ok":
        if warned:
            admitted.warned = scopes[warned - 1].id
        if blob:
            admitted.cached = blob[0]
        return admitted
    admitted.refused = cast(Refusal, word.decode())
    if admitted.refused == "money":
        admitted.money_left, admitted.money_held = retry, warned
    else:
        admitted.retry_after_ms = retry
    if scope:
        admitted.scope, admitted.places = scopes[scope - 1].id, scopes[scope - 1].limits.concurrent_requests or 0
    return admitted
