"""Where a request is counted: the Redis keys of its scopes and the words that admission's scripts take. Pure.

Made once a principal, because a request has no time for it. All keys of an org carry one hash tag, so that Redis
Cluster keeps them together.
"""

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal

from quarterdeck.net.redis import pack_arguments
from quarterdeck.settings.limits import Budget, Limits

MICRODOLLARS = Decimal(10**6)
MOST_MONEY = 2**53 - 1
"""10⁻⁶ $: nine billion dollars. Redis' Lua counts in doubles, which are exact up to here; a larger budget is this."""
PERIODS = ("", "day", "week", "month", "total")
"""A budget's period, by the number that the scripts know it by; 0: no budget."""


@dataclass(frozen=True, slots=True)
class Scope:
    """Something that is counted for a request: its key, its team, its organisation."""

    id: str
    """`key:<id>`, `team:<id>`, `org`."""
    limits: Limits
    budget: Budget | None = None


def stream_key(org: str) -> str:
    return f"ledger:{{{org}}}"


def revision_key(org: str) -> str:
    return f"revision:{{{org}}}"


def reservations_key(org: str) -> str:
    return f"reservations:{{{org}}}"


def deadlines_key(org: str) -> str:
    return f"deadlines:{{{org}}}"


def cold_key(org: str) -> str:
    """The budgets that wait for the worker to count what the ledger knows: `<period> <scope id>`."""
    return f"cold:{{{org}}}"


def rebuilding_key(org: str) -> str:
    """The name of the worker that counts an org's budgets anew; as long as it is there no record leaves the stream."""
    return f"rebuilding:{{{org}}}"


def bucket_key(org: str, scope: str) -> str:
    return f"bucket:{{{org}}}:{scope}"


def money_key(org: str, scope: str) -> str:
    return f"money:{{{org}}}:{scope}"


@dataclass(frozen=True, slots=True)
class Counters:
    """The scopes of one principal, in the words of the scripts."""

    org: str
    scopes: tuple[Scope, ...] = ()
    has_budget: bool = field(init=False)
    has_limits: bool = field(init=False)
    reserve_keys: bytes = field(init=False, repr=False, compare=False)
    """RESERVE's, without the requests' own; packed for Redis."""
    reserve_keys_count: int = field(init=False, repr=False, compare=False)
    settle_keys: tuple[str, ...] = field(init=False, repr=False, compare=False)
    """SETTLE's, without the requests' own."""
    limits_plan: bytes = field(init=False, repr=False, compare=False)
    """Six doubles a scope: requests, tokens, concurrent, period, amount, 1 where an exhausted budget denies."""
    plan: str = field(init=False, repr=False, compare=False)
    """Two digits a scope: whether it has limits, and its budget's period."""
    noted: Mapping[str, str] = field(init=False, repr=False, compare=False)
    """The scopes and their plans, for a note that another process settles."""

    def __post_init__(self) -> None:
        org, scopes = self.org, self.scopes
        noted = {scope.id: ("1" if _is_limited(scope) else "0") + str(_period(scope.budget)) for scope in scopes}
        settle_keys, plan = settle_words(org, noted)
        of_org = (revision_key(org), reservations_key(org), deadlines_key(org), stream_key(org), cold_key(org))
        keys = (*of_org, *_scope_keys(org, noted))
        made = {
            "has_budget": any(scope.budget is not None for scope in scopes),
            "has_limits": any(_is_limited(scope) for scope in scopes),
            "reserve_keys": pack_arguments(*keys),
            "reserve_keys_count": len(keys),
            "settle_keys": settle_keys,
            "limits_plan": b"".join(_packed(scope) for scope in scopes),
            "plan": plan,
            "noted": noted,
        }
        for name, value in made.items():
            object.__setattr__(self, name, value)


def settle_words(org: str, noted: Mapping[str, str]) -> tuple[tuple[str, ...], str]:
    """`settle_keys` and `plan` of scopes that only a note tells of."""
    keys = (reservations_key(org), deadlines_key(org), stream_key(org), *_scope_keys(org, noted))
    return keys, "".join(noted.values())


def is_limited(limits: Limits) -> bool:
    """Whether requests are counted. The size of one request (`max_tokens`) is looked at before."""
    counted = (limits.requests_per_minute, limits.tokens_per_minute, limits.concurrent_requests)
    return any(limit is not None for limit in counted)


def _is_limited(scope: Scope) -> bool:
    return is_limited(scope.limits)


def _scope_keys(org: str, ids: Mapping[str, str]) -> Sequence[str]:
    return [key for id in ids for key in (bucket_key(org, id), money_key(org, id))]


def _period(budget: Budget | None) -> int:
    return 0 if budget is None else PERIODS.index(budget.period)


def _packed(scope: Scope) -> bytes:
    limits, budget = scope.limits, scope.budget
    amount = min(int(budget.amount * MICRODOLLARS), MOST_MONEY) if budget else 0
    return struct.pack(
        "<6d",
        limits.requests_per_minute or 0,
        limits.tokens_per_minute or 0,
        limits.concurrent_requests or 0,
        _period(budget),
        amount,
        budget is not None and budget.on_exhausted == "deny",
    )
