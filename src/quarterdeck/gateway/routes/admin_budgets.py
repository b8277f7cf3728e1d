"""`/admin/budgets`: all budgets of an organisation, with what is spent, held and left of them now."""

from fastapi import APIRouter, Response

from quarterdeck.errors import ServiceUnavailableError
from quarterdeck.gateway.dependencies import ManagedOrgDep, PartsDep
from quarterdeck.gateway.http.responses import json_response
from quarterdeck.net.redis import RedisError, RedisUnavailableError
from quarterdeck.resources.tenancy.budgets import Budgets, budget_objects

router = APIRouter(prefix="/admin/budgets")


@router.get("")
async def list_budgets(parts: PartsDep, org: ManagedOrgDep) -> Response:
    """List the budgets of the admin's organisation (or `org`), of its teams and of its keys. `as_of`: the second of the
    status, by Redis' clock."""
    scopes = await Budgets(parts.keys, parts.teams, parts.orgs).of(org, parts.config)
    try:
        second, statuses = await parts.budgets.statuses(org, [(each.scope, each.budget) for each in scopes])
    except (RedisUnavailableError, RedisError) as error:
        raise ServiceUnavailableError(
            "What is spent of budgets is temporarily unavailable.", code="limits_unavailable"
        ) from error
    data = budget_objects(scopes, statuses)
    return json_response({"object": "list", "data": data, "as_of": second, "has_more": False})
