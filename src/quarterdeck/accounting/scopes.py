"""Where a request is counted (its key, its team, its org), as the arguments of admission's scripts. Pure.

Computed once for each principal: a request has no time for it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from quarterdeck.accounting.layouts import pack_plan
from quarterdeck.accounting.periods import period_kind
from quarterdeck.accounting.redis_keys import (
    bucket_key,
    cold_key,
    deadlines_key,
    money_key,
    reservations_key,
    revision_key,
    stream_key,
)
from quarterdeck.net.redis import pack_arguments
from quarterdeck.settings.limits import Budget, Limits

ANY_TOKENS = 2**53
"""No limit: more than Redis' Lua counts exactly."""


def team_scope(team: str, remade: float | None) -> str:
    """The scope id of a team. `remade`: when it was made of a deleted team of the same name, whose spending is not its
    own; Unix seconds."""
    return f"team:{team}" if remade is None else f"team:{team}@{round(remade * 1000)}"


def split_scope(scope: str) -> tuple[str, str, float]:
    """The kind of a scope (key, team, org), its name, and since when (Unix seconds) requests count in it."""
    kind, _, name = scope.partition(":")
    name, _, remade = name.partition("@")
    return kind, name, int(remade) / 1000 if remade else 0.0


@dataclass(frozen=True, slots=True)
class Scope:
    """What requests are counted for: a key, a team or an organisation, with its limits and budget."""

    id: str
    """`key:<id>`, `team:<id>`, `org`. See `team_scope`."""
    limits: Limits
    budget: Budget | None = None
    requests_limit: int = field(init=False, repr=False, compare=False)
    tokens_limit: int = field(init=False, repr=False, compare=False)
    """A minute; 0: none. Each admission reads them (`settings.snapshot`)."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "requests_limit", self.limits.requests_per_minute or 0)
        object.__setattr__(self, "tokens_limit", self.limits.tokens_per_minute or 0)


@dataclass(frozen=True, slots=True)
class ScopeSet:
    """The scopes of one principal, with the arguments that the scripts take for them."""

    org: str
    scopes: tuple[Scope, ...] = ()
    has_budget: bool = field(init=False)
    denies: bool = field(init=False)
    """Whether an exhausted budget refuses requests."""
    most_tokens: int = field(init=False)
    """The smallest of the limits in tokens: a request reserves no more, as more could never be there. Else a large
    request of a key with a small limit would take the tokens of its whole team."""
    reserve_keys: bytes = field(init=False, repr=False, compare=False)
    """RESERVE's keys without those of requests, packed for the wire."""
    reserve_keys_count: int = field(init=False, repr=False, compare=False)
    reserve_plan: bytes = field(init=False, repr=False, compare=False)
    """`layouts.pack_plan` of each scope."""
    settle_keys: tuple[str, ...] = field(init=False, repr=False, compare=False)
    """SETTLE's keys without those of requests."""
    settle_plan: str = field(init=False, repr=False, compare=False)
    """Two digits a scope: 1 where it has limits, and the kind of its budget's period (0: no budget)."""
    noted: Mapping[str, str] = field(init=False, repr=False, compare=False)
    """Scope ids with their digits of `settle_plan`, for a note by which another process settles."""

    def __post_init__(self) -> None:
        org, scopes = self.org, self.scopes
        noted = {scope.id: _digits(scope) for scope in scopes}
        settle_keys, settle_plan = settle_arguments(org, noted)
        of_org = (revision_key(org), reservations_key(org), deadlines_key(org), stream_key(org), cold_key(org))
        keys = (*of_org, *_scope_keys(org, noted))
        computed = {
            "has_budget": any(scope.budget is not None for scope in scopes),
            "denies": any(scope.budget is not None and scope.budget.on_exhausted == "deny" for scope in scopes),
            "most_tokens": min([scope.limits.tokens_per_minute or ANY_TOKENS for scope in scopes], default=ANY_TOKENS),
            "reserve_keys": pack_arguments(*keys),
            "reserve_keys_count": len(keys),
            "reserve_plan": b"".join(pack_plan(scope.limits, scope.budget) for scope in scopes),
            "settle_keys": settle_keys,
            "settle_plan": settle_plan,
            "noted": noted,
        }
        for name, value in computed.items():
            object.__setattr__(self, name, value)


def settle_arguments(org: str, noted: Mapping[str, str]) -> tuple[tuple[str, ...], str]:
    """`ScopeSet.settle_keys` and `settle_plan`, from what a note says of the scopes."""
    keys = (reservations_key(org), deadlines_key(org), stream_key(org), *_scope_keys(org, noted))
    return keys, "".join(noted.values())


def is_limited(limits: Limits) -> bool:
    """Whether requests are counted. The size of one request (`max_tokens`) is checked before admission."""
    counted = (limits.requests_per_minute, limits.tokens_per_minute, limits.concurrent_requests)
    return any(limit is not None for limit in counted)


def _digits(scope: Scope) -> str:
    kind = 0 if scope.budget is None else period_kind(scope.budget.period)
    return f"{int(is_limited(scope.limits))}{kind}"


def _scope_keys(org: str, ids: Mapping[str, str]) -> Sequence[str]:
    return [key for id in ids for key in (bucket_key(org, id), money_key(org, id))]
