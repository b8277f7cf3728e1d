"""What is spent of a budget, for those who look: admission's own count, as it would read it now."""

import asyncio
from dataclasses import dataclass
from decimal import Decimal

from quarterdeck.accounting import admission
from quarterdeck.accounting.admission import Money
from quarterdeck.accounting.periods import period_number, period_start
from quarterdeck.accounting.scopes import MICRODOLLARS
from quarterdeck.net.redis import Redis, RedisError, RedisUnavailableError
from quarterdeck.settings.limits import Budget


@dataclass(frozen=True, slots=True)
class BudgetStatus:
    """A budget in the period that it is in. Money in whole 10⁻⁶ $."""

    period_start: int | None
    """Unix seconds; None: it has no periods."""
    spent: int
    held: int
    """By requests under way."""
    left: int
    is_counting: bool
    """What was spent before is not in `spent` yet: the worker counts it when a request with a price comes."""

    def told(self) -> dict[str, int | str | bool | None]:
        """`budget_status` of the admin API."""
        money = {"spent": self.spent, "held": self.held, "left": self.left}
        told = {name: format(Decimal(amount).scaleb(-6).normalize(), "f") for name, amount in money.items()}
        return {"period_start": self.period_start, **told, "is_counting": self.is_counting}


class Budgets:
    """Budgets of all orgs, read in Redis."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def status(self, org: str, scope: str, budget: Budget | None) -> dict[str, int | str | bool | None] | None:
        """Of a scope (`key:…`, `team:…`, `org`). None: it has no budget, or Redis is away."""
        if budget is None:
            return None
        try:
            money, clock = await asyncio.gather(admission.read_money(self._redis, org, scope), self._redis.call("TIME"))
        except (RedisUnavailableError, RedisError):  # what the object may spend can be told all the same
            return None
        return status_of(budget, money, int(clock[0])).told()


def status_of(budget: Budget, money: Money | None, second: int) -> BudgetStatus:
    """What the next admission would find. Pure."""
    spent, held, is_counting = 0, 0, True
    if money is not None and money.kind == budget.period:
        is_counting = money.is_cold
        if money.period >= period_number(budget.period, second):  # else that one is over
            spent, held = money.spent, money.held
    elif money is not None:  # counted in another period so far
        held = money.held
    start = None if budget.period == "total" else int(period_start(budget.period, second))
    left = max(0, int(budget.amount * MICRODOLLARS) - spent - held)
    return BudgetStatus(start, spent, held, left, is_counting)
