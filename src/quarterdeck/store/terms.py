"""What an org, a team or a key may take, as it stands in JSON columns."""

from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from quarterdeck.settings.limits import Budget, Limits


@dataclass(frozen=True, slots=True)
class Terms:
    """Of an org or a team. None: nothing is said."""

    limits: Limits | None = None
    budget: Budget | None = None
    priority: int | None = None


NOTHING = Terms()


def stored(terms: BaseModel | None) -> dict[str, Any] | None:
    """Limits or a budget for a column; money as text, so that it stays exact."""
    return None if terms is None else terms.model_dump(mode="json", exclude_none=True)


def limits_of(column: Any) -> Limits | None:
    return None if column is None else Limits.model_validate(column)


def budget_of(column: Any) -> Budget | None:
    return None if column is None else Budget.model_validate(column)
