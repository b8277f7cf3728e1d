"""Requests that cost money, and the state of budgets in Redis, for tests."""

import struct
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import msgspec
from tests.records import a_record

from quarterdeck import ids
from quarterdeck.accounting import admission, commit, layouts
from quarterdeck.accounting.admission import Admission, Reservation
from quarterdeck.accounting.commit import Note
from quarterdeck.accounting.layouts import Money
from quarterdeck.accounting.periods import PERIODS
from quarterdeck.accounting.redis_keys import money_key
from quarterdeck.accounting.scopes import Scope, ScopeSet
from quarterdeck.net.redis import Redis
from quarterdeck.record import RequestRecord
from quarterdeck.settings.limits import Budget, Limits

ORG = "default"
NO_LIMITS = Limits()
new_id = ids.RequestIds().next


def dollars(millionths: int) -> Decimal:
    return Decimal(millionths).scaleb(-6)


def a_scope(id: str, amount: int, *, limits: Limits = NO_LIMITS, period: str = "total", warns: bool = False) -> Scope:
    """A scope with a budget of `amount` 10⁻⁶ $."""
    budget = {"amount": dollars(amount), "period": period, "on_exhausted": "warn" if warns else "deny"}
    return Scope(id, limits, Budget.model_validate(budget))


async def trust(redis: Redis, *scopes: Scope, spent: int = 0, held: int = 0, period: int = 0) -> None:
    """Set budgets as the worker does after a recount."""
    for scope in scopes:
        assert scope.budget is not None
        kind = PERIODS.index(scope.budget.period)
        await redis.call("SET", money_key(ORG, scope.id), struct.pack("<5d", kind, period, spent, held, 0))


async def money(redis: Redis, scope: str) -> Money:
    found = await layouts.read_money(redis, ORG, scope)
    assert found is not None
    return found


async def spent_and_held(redis: Redis, *scopes: str) -> list[tuple[int, int]]:
    states = [await money(redis, scope) for scope in scopes]
    return [(state.spent, state.held) for state in states]


def a_reservation(scope_set: ScopeSet, money: int, tokens: int = 10, **changes: Any) -> Reservation:
    key = next((scope.id.removeprefix("key:") for scope in scope_set.scopes if scope.id.startswith("key:")), "key_1")
    id = new_id()
    lost = a_record(id=id, key=key, status="lost", input_tokens=0, output_tokens=0, cost=Decimal(0))
    return Reservation(id, scope_set, msgspec.json.encode(Note(lost, scope_set.noted)), tokens, money, **changes)


async def reserve(redis: Redis, scopes: Sequence[Scope], money: int, **changes: Any) -> tuple[Reservation, Admission]:
    wanted = a_reservation(ScopeSet(ORG, tuple(scopes)), money, **changes)
    return wanted, await admission.reserve(redis, wanted)


def a_bill(reservation: Reservation, cost: Decimal, **changes: Any) -> RequestRecord:
    note = msgspec.json.decode(reservation.note, type=Note)
    fields: dict[str, Any] = {"id": reservation.id, "key": note.record.key, "team": note.record.team, "cost": cost}
    return a_record(**(fields | {"input_tokens": 0, "output_tokens": 0} | changes))


async def settle(redis: Redis, reservation: Reservation, cost: Decimal, **changes: Any) -> bool:
    return await commit.settle(redis, a_bill(reservation, cost, **changes), reservation.scope_set)
