"""Alerts of budgets: which thresholds a budget has reached, and the events that say so. Pure.

A threshold counts what was spent, not what requests in flight hold. A budget that denies is never spent entirely, as it
refuses the request that may cost more than is left: it counts as used up (100 %) once it refuses with REFUSING_PERCENT
spent. Below that, a refusal says more of the request than of the budget. A changed amount is another budget: an alert
of it is another one, so a budget that is topped up is watched again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from quarterdeck.accounting.budget_status import BudgetStatus
from quarterdeck.accounting.periods import period_end
from quarterdeck.money import budget_microdollars
from quarterdeck.resources.tenancy.budgets import BudgetedScope

REFUSING_PERCENT = 80
KEEP_SECONDS = 30 * 86_400.0
"""How long after its period an event stays."""


@dataclass(frozen=True, slots=True)
class Alert:
    """A threshold that was reached."""

    key: str
    """The same for the same scope, period, amount and threshold."""
    data: Mapping[str, Any]
    expires: float | None
    """Unix seconds after which the key can't come again. None: the budget has no periods."""


def may_be_refusing(of: BudgetedScope, status: BudgetStatus) -> bool:
    """Whether a refusal would mean that the budget is used up."""
    amount = budget_microdollars(of.budget.amount)
    return of.budget.on_exhausted == "deny" and status.spent * 100 >= REFUSING_PERCENT * amount


def alerts_of(
    org: str, of: BudgetedScope, status: BudgetStatus, thresholds: Sequence[int], *, refused_at: int = 0
) -> list[Alert]:
    """An alert for each of `thresholds` (percent) that is reached, in their order. `refused_at`: when the budget
    refused a request last, Unix seconds; 0: never."""
    amount = budget_microdollars(of.budget.amount)
    if status.is_counting or not amount:
        return []  # a part of what was spent is not known yet
    is_refusing = may_be_refusing(of, status) and refused_at > (status.period_start or 0)
    spent = max(status.spent, amount) if is_refusing else status.spent
    reached = [percent for percent in thresholds if spent * 100 >= percent * amount]
    return [_alert(org, of, status, percent, amount, is_refusing) for percent in reached]


def _alert(org: str, of: BudgetedScope, status: BudgetStatus, percent: int, amount: int, is_refusing: bool) -> Alert:
    period, start = of.budget.period, status.period_start
    end = None if start is None else period_end(period, start)
    shown = status.as_json()
    data = {
        "organization": org,
        "scope": of.kind,
        "id": of.id,
        "name": of.name,
        "team": of.team,
        "threshold_percent": percent,
        "spent_percent": _percent(status.spent, amount),
        "is_refusing": is_refusing,
        "budget": of.budget.model_dump(mode="json"),
        "spent": shown["spent"],
        "held": shown["held"],
        "left": shown["left"],
        "currency": "usd",
        "period_start": _iso(start),
        "period_end": _iso(end),
    }
    key = f"budget/{of.scope}/{period}/{start or 0}/{amount}/{percent}"
    return Alert(key, data, None if end is None else end + KEEP_SECONDS)


def _percent(spent: int, amount: int) -> str:
    """To two decimals, rounded down: 99.99 is not all of it."""
    return format((Decimal(spent * 10_000 // amount) / 100).normalize(), "f")


def _iso(second: float | None) -> str | None:
    return None if second is None else datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
