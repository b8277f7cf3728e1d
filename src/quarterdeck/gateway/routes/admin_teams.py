"""`/admin/teams`: keys that are limited and counted together."""

from typing import Annotated

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, ConfigDict

from quarterdeck.errors import NotFoundError
from quarterdeck.gateway.dependencies import AdminDep, PartsDep
from quarterdeck.gateway.http.responses import json_response
from quarterdeck.resources.tenancy.changes import Change
from quarterdeck.resources.tenancy.objects import given, managed, merged, named_teams, owns_team, page, team_object
from quarterdeck.resources.tenancy.principals import team_terms
from quarterdeck.settings.limits import Budget, Limits
from quarterdeck.settings.tenancy import Priority, TeamName
from quarterdeck.store.teams import TeamRow

router = APIRouter(prefix="/admin/teams")


class TeamUpdate(BaseModel):
    """The body of `POST /admin/teams/{team}`: what is not given stays as it is, null takes it away."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    limits: Limits | None = None
    """Of all of its keys together; `max_tokens` of each request."""
    budget: Budget | None = None
    """Money of all of its keys together."""
    priority: Priority | None = None
    """0 to 9, of its keys that have none of their own."""


class TeamRequest(TeamUpdate):
    """The body of `POST /admin/teams`."""

    id: TeamName
    """Its name."""


@router.post("")
async def create_team(body: TeamRequest, parts: PartsDep, admin: AdminDep) -> Response:
    """Make a team in the admin's org. (A key of a team that does not exist makes one as well.)"""
    if owns_team(parts.config, admin.org, body.id):
        raise managed(f"teams.{body.id}", param="id")
    row = await parts.teams.create(
        body.id, org=admin.org, limits=body.limits, budget=body.budget, priority=body.priority
    )
    return json_response(team_object(row, parts.config), 201)


@router.get("")
async def list_teams(
    parts: PartsDep,
    admin: AdminDep,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    after: str | None = None,
) -> Response:
    """By name: those of the database and those of quarterdeck.yaml."""
    stored = await parts.teams.list(org=admin.org, limit=limit + 1, after=after)
    found = merged(stored, named_teams(parts.config, admin.org, after=after))
    return json_response(page([team_object(row, parts.config) for row in found], limit))


@router.get("/{team}")
async def retrieve_team(team: str, parts: PartsDep, admin: AdminDep) -> Response:
    """What it may take; in `budget_status` what is spent, held and left of its budget now."""
    try:
        row = await parts.teams.retrieve(team, org=admin.org)
    except NotFoundError:
        if not owns_team(parts.config, admin.org, team):
            raise
        row = TeamRow(admin.org, team, 0.0)
    terms = team_terms(row.org, row.id, row.terms, parts.config)
    status = await parts.budgets.status(row.org, f"team:{row.id}", terms.budget)
    return json_response({**team_object(row, parts.config), "budget_status": status})


@router.post("/{team}")
async def update_team(team: str, body: TeamUpdate, parts: PartsDep, admin: AdminDep) -> Response:
    """Change it. What is not given stays, null takes away; it holds from its keys' next requests on."""
    if owns_team(parts.config, admin.org, team):
        raise managed(f"teams.{team}")
    row = await parts.teams.update(team, org=admin.org, **given(body))
    await parts.changes.announce(Change(admin.org, team=team))
    return json_response(team_object(row, parts.config))


@router.delete("/{team}")
async def delete_team(team: str, parts: PartsDep, admin: AdminDep) -> Response:
    """Delete a team whose keys are all revoked or moved. What it used stays in the ledger."""
    if owns_team(parts.config, admin.org, team):
        raise managed(f"teams.{team}")
    await parts.teams.delete(team, org=admin.org)
    return json_response({"id": team, "object": "team", "deleted": True})
