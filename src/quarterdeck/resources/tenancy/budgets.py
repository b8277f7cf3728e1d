"""The budgets in force of an organisation, its teams and its keys."""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from quarterdeck.accounting.budget_status import BudgetStatus
from quarterdeck.accounting.periods import period_end
from quarterdeck.accounting.scopes import team_scope
from quarterdeck.resources.tenancy.principals import key_terms, org_terms, team_terms
from quarterdeck.settings.config import Config
from quarterdeck.settings.limits import Budget
from quarterdeck.store.keys import KeyRow, KeyStore
from quarterdeck.store.orgs import OrgRow, OrgStore
from quarterdeck.store.teams import TeamRow, TeamStore


@dataclass(frozen=True, slots=True)
class BudgetedScope:
    """A key, a team or an organisation with a budget."""

    scope: str
    """Its scope id (`accounting.scopes`)."""
    kind: str
    """`key`, `team` or `organization`."""
    id: str
    name: str
    budget: Budget
    team: str | None = None
    """Of a key."""


@dataclass(frozen=True, slots=True)
class Budgets:
    """Stores from which budgets are read."""

    keys: KeyStore
    teams: TeamStore
    orgs: OrgStore

    async def of(self, org: str, config: Config) -> list[BudgetedScope]:
        """The organisation's budget, then those of its teams and of its keys that are not revoked. Raises
        NotFoundError."""
        keys, teams, row = await asyncio.gather(
            self.keys.list_budgeted(org=org, names=list(config.keys)),
            self.teams.list_budgeted(org=org, names=list(config.teams)),
            self.orgs.retrieve(org),
        )
        return budgets_of(row, teams, keys, config)


def budgets_of(org: OrgRow, teams: Iterable[TeamRow], keys: Iterable[KeyRow], config: Config) -> list[BudgetedScope]:
    """Those that have a budget. Pure."""
    found = []
    if (budget := org_terms(org.id, org.terms, config).budget) is not None:
        found.append(BudgetedScope("org", "organization", org.id, org.id, budget))
    for team in teams:
        if (budget := team_terms(org.id, team.id, team.terms, config).budget) is not None:
            found.append(BudgetedScope(team_scope(team.id, team.remade), "team", team.id, team.id, budget))
    for key in keys:
        if (budget := key_terms(key, config)[0].budget) is not None:
            found.append(BudgetedScope(f"key:{key.id}", "key", key.id, key.name, budget, key.team))
    return found


def budget_objects(scopes: Sequence[BudgetedScope], statuses: Sequence[BudgetStatus]) -> list[dict[str, Any]]:
    """Budgets as the admin API shows them. Pure."""
    return [_object(each, status) for each, status in zip(scopes, statuses, strict=True)]


def _object(of: BudgetedScope, status: BudgetStatus) -> dict[str, Any]:
    start = status.period_start
    return {
        "object": "budget",
        "scope": of.kind,
        "id": of.id,
        "name": of.name,
        "team": of.team,
        **of.budget.model_dump(mode="json"),
        **status.as_json(),
        "period_end": None if start is None else int(period_end(of.budget.period, start)),
    }
