"""Terms of orgs, teams and keys (limits, budget, priority), as the database stores them."""

from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from quarterdeck.content import Level
from quarterdeck.settings.limits import MAX_LIMIT, Budget, Limits


@dataclass(frozen=True, slots=True)
class Terms:
    """Terms of an org or a team. None: not set."""

    limits: Limits | None = None
    budget: Budget | None = None
    priority: int | None = None
    content: Level | None = None
    """What is kept of inputs and outputs."""


NO_TERMS = Terms()


def to_column(terms: BaseModel | None) -> dict[str, Any] | None:
    """Limits or a budget as a JSON column; money as text, so that it stays exact."""
    return None if terms is None else terms.model_dump(mode="json", exclude_none=True)


def limits_of(column: Any) -> Limits | None:
    """Limits from a JSON column. One that was stored before there was a largest limit counts as that."""
    if column is None:
        return None
    return Limits.model_validate({name: min(value, MAX_LIMIT) for name, value in column.items()})


def budget_of(column: Any) -> Budget | None:
    """A budget from a JSON column."""
    return None if column is None else Budget.model_validate(column)
