"""Binary values that Python and the Lua scripts share: a scope's money in Redis, and its plan in *reserve*.

The layout of the money key is known here and in `lua/money.lua`, which alone writes it. That of the bucket key is known
in `lua/bucket.lua` only.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from quarterdeck.accounting.periods import PERIODS, period_kind
from quarterdeck.accounting.redis_keys import money_key
from quarterdeck.money import budget_microdollars
from quarterdeck.net.redis import Redis
from quarterdeck.settings.limits import Budget, Limits

_MONEY = struct.Struct("<5d")
_PLAN = struct.Struct("<6d")
AT_ONCE = 500
"""Scopes read by one command."""


@dataclass(frozen=True, slots=True)
class Money:
    """The state of a scope's budget in one period, in 10⁻⁶ $."""

    kind: str
    """The kind of its period."""
    period: int
    """`period_number`."""
    spent: int
    held: int
    """By requests in flight."""
    is_cold: bool
    """What was spent before this state was created is missing from `spent`."""


def unpack_money(data: bytes) -> Money:
    """The value of a money key. Raises struct.error."""
    kind, period, spent, held, cold = _MONEY.unpack(data)
    return Money(PERIODS[int(kind)], int(period), int(spent), int(held), bool(cold))


def pack_plan(limits: Limits, budget: Budget | None) -> bytes:
    """A scope in the plan of *reserve*: requests, tokens, concurrent, kind of period, amount, 1 where an exhausted
    budget denies. 0: no such limit."""
    return _PLAN.pack(
        limits.requests_per_minute or 0,
        limits.tokens_per_minute or 0,
        limits.concurrent_requests or 0,
        0 if budget is None else period_kind(budget.period),
        0 if budget is None else budget_microdollars(budget.amount),
        budget is not None and budget.on_exhausted == "deny",
    )


async def read_money(redis: Redis, org: str, scope: str) -> Money | None:
    """As last written: its period may be over. None: no request with a price was reserved yet. Raises as
    `Redis.call`."""
    data = await redis.call("GET", money_key(org, scope))
    return None if data is None else unpack_money(data)


async def read_all_money(redis: Redis, org: str, scopes: Sequence[str]) -> list[Money | None]:
    """`read_money` of each scope. Raises as `Redis.call`."""
    found: list[Money | None] = []
    for start in range(0, len(scopes), AT_ONCE):
        keys = [money_key(org, scope) for scope in scopes[start : start + AT_ONCE]]
        found += [None if data is None else unpack_money(data) for data in await redis.call("MGET", *keys)]
    return found
