"""The status of budgets for the admin API: what the next admission would find in Redis."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from quarterdeck.accounting.layouts import Money, read_all_money, read_money
from quarterdeck.accounting.periods import period_number, period_start
from quarterdeck.money import budget_microdollars, dollars_text
from quarterdeck.net.redis import Redis, RedisError, RedisUnavailableError
from quarterdeck.settings.limits import Budget


@dataclass(frozen=True, slots=True)
class BudgetStatus:
    """A budget in its current period. Money in whole 10⁻⁶ $."""

    period_start: int | None
    """Unix seconds; None: it has no periods."""
    spent: int
    held: int
    """By requests in flight."""
    left: int
    is_counting: bool
    """Earlier spending is missing from `spent`: the worker adds it when the next request with a price arrives."""

    def as_json(self) -> dict[str, int | str | bool | None]:
        """`budget_status` of the admin API."""
        return {
            "period_start": self.period_start,
            "spent": dollars_text(self.spent),
            "held": dollars_text(self.held),
            "left": dollars_text(self.left),
            "is_counting": self.is_counting,
        }


class BudgetReader:
    """Reads the status of any org's budgets."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def status(self, org: str, scope: str, budget: Budget | None) -> dict[str, int | str | bool | None] | None:
        """The budget of a scope (`key:…`, `team:…`, `org`). None: it has no budget, or Redis is away."""
        if budget is None:
            return None
        try:
            money, clock = await asyncio.gather(read_money(self._redis, org, scope), self._redis.call("TIME", tag=org))
        except (RedisUnavailableError, RedisError):  # the rest of the object can be shown all the same
            return None
        return status_of(budget, money, int(clock[0])).as_json()

    async def statuses(self, org: str, budgets: Sequence[tuple[str, Budget]]) -> tuple[int, list[BudgetStatus]]:
        """The second (Unix, of Redis' clock), and the status of each scope's budget. Raises as `Redis.call`."""
        scopes = [scope for scope, _ in budgets]
        moneys, clock = await asyncio.gather(
            read_all_money(self._redis, org, scopes), self._redis.call("TIME", tag=org)
        )
        second = int(clock[0])
        pairs = zip(budgets, moneys, strict=True)
        return second, [status_of(budget, money, second) for (_, budget), money in pairs]


def status_of(budget: Budget, money: Money | None, second: int) -> BudgetStatus:
    """What an admission at `second` (Unix) would find. Pure."""
    spent, held, is_counting = 0, 0, True
    if money is not None and money.kind == budget.period:
        is_counting = money.is_cold
        if money.period >= period_number(budget.period, second):  # else that period is over
            spent, held = money.spent, money.held
    elif money is not None:  # counted in another kind of period so far
        held = money.held
    start = None if budget.period == "total" else int(period_start(budget.period, second))
    left = max(0, budget_microdollars(budget.amount) - spent - held)
    return BudgetStatus(start, spent, held, left, is_counting)
