"""`/admin/teams`: teams, whose keys share limits and a budget."""

from typing import Annotated

from fastapi import APIRouter, Query, Response

from quarterdeck.accounting.scopes import team_scope
from quarterdeck.errors import NotFoundError
from quarterdeck.gateway.dependencies import ManagedOrgDep, PartsDep
from quarterdeck.gateway.http.responses import json_response
from quarterdeck.resources.tenancy.changes import Change
from quarterdeck.resources.tenancy.objects import (
    is_team_in_config,
    managed,
    merge_teams,
    page,
    team_object,
    teams_in_config,
)
from quarterdeck.resources.tenancy.principals import team_terms
from quarterdeck.resources.tenancy.requests import TeamRequest, TeamUpdate, given
from quarterdeck.store.teams import TeamRow

router = APIRouter(prefix="/admin/teams")


@router.post("")
async def create_team(body: TeamRequest, parts: PartsDep, org: ManagedOrgDep) -> Response:
    """Create a team in the admin's organisation, or in `org`. Creating a key for a new team creates the team too."""
    if is_team_in_config(parts.config, org, body.id):
        raise managed(f"teams.{body.id}", param="id")
    row = await parts.teams.create(
        body.id,
        org=org,
        limits=body.limits,
        budget=body.budget,
        priority=body.priority,
        content=body.content,
    )
    await parts.changes.announce(Change(org, team=row.id, remade=row.remade), unspent=row.terms.budget)
    return json_response(team_object(row, parts.config), 201)


@router.get("")
async def list_teams(
    parts: PartsDep,
    org: ManagedOrgDep,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    after: str | None = None,
) -> Response:
    """List teams by name: those of the database and those of quarterdeck.yaml."""
    stored = await parts.teams.list(org=org, limit=limit + 1, after=after)
    found = merge_teams(stored, teams_in_config(parts.config, org, after=after))
    return json_response(page([team_object(row, parts.config) for row in found], limit))


@router.get("/{team}")
async def retrieve_team(team: str, parts: PartsDep, org: ManagedOrgDep) -> Response:
    """Retrieve a team. `budget_status`: what is spent, held and left of its budget now; `keys`: its keys that are not
    revoked."""
    try:
        row = await parts.teams.retrieve(team, org=org)
    except NotFoundError:
        if not is_team_in_config(parts.config, org, team):
            raise
        row = TeamRow(org, team, 0.0)
    terms = team_terms(row.org, row.id, row.terms, parts.config)
    status = await parts.budgets.status(row.org, team_scope(row.id, row.remade), terms.budget)
    keys = await parts.teams.count_keys(row.id, org=row.org)
    return json_response({**team_object(row, parts.config), "keys": keys, "budget_status": status})


@router.post("/{team}")
async def update_team(team: str, body: TeamUpdate, parts: PartsDep, org: ManagedOrgDep) -> Response:
    """Update a team. Fields left out keep their value, null removes it. Takes effect with its keys' next requests."""
    if is_team_in_config(parts.config, org, team):
        raise managed(f"teams.{team}")
    row = await parts.teams.update(team, org=org, **given(body))
    await parts.changes.announce(Change(org, team=team, remade=row.remade))
    return json_response(team_object(row, parts.config))


@router.delete("/{team}")
async def delete_team(team: str, parts: PartsDep, org: ManagedOrgDep) -> Response:
    """Delete a team whose keys are all revoked or moved. Its usage stays in the ledger."""
    if is_team_in_config(parts.config, org, team):
        raise managed(f"teams.{team}")
    await parts.teams.delete(team, org=org)
    return json_response({"id": team, "object": "team", "deleted": True})
