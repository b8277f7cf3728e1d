"""`/admin/organizations`: what an organisation may take as a whole.

The admins of the platform's own organisation (`default`) make the others and say what they may take; an admin of
another one sees its own and can't raise its own bounds.
"""

from typing import Annotated

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, ConfigDict

from quarterdeck.accounting.principal import Principal
from quarterdeck.errors import PermissionDeniedError
from quarterdeck.gateway.dependencies import AdminDep, PartsDep
from quarterdeck.gateway.http.responses import json_response
from quarterdeck.resources.tenancy.changes import Change
from quarterdeck.resources.tenancy.objects import given, managed, org_object, owns_org, page
from quarterdeck.resources.tenancy.principals import org_terms
from quarterdeck.settings.limits import Budget, Limits
from quarterdeck.settings.tenancy import TeamName
from quarterdeck.store.orgs import DEFAULT_ORG

router = APIRouter(prefix="/admin/organizations")


class OrgUpdate(BaseModel):
    """The body of `POST /admin/organizations/{org}`: what is not given stays as it is, null takes it away."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    limits: Limits | None = None
    """Of all of its keys together; `max_tokens` of each request."""
    budget: Budget | None = None
    """Money of all of its keys together."""


class OrgRequest(OrgUpdate):
    """The body of `POST /admin/organizations`."""

    id: TeamName
    """Its name."""


@router.post("")
async def create_organization(body: OrgRequest, parts: PartsDep, admin: AdminDep) -> Response:
    """Make an organisation. Its first admin key: `POST /admin/keys` with `org` and `admin`."""
    _only_for_the_platform(admin)
    row = await parts.orgs.create(body.id, limits=body.limits, budget=body.budget)
    return json_response(org_object(row, parts.config), 201)


@router.get("")
async def list_organizations(
    parts: PartsDep,
    admin: AdminDep,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    after: str | None = None,
) -> Response:
    """By name: all of them for the platform's admins, else the admin's own."""
    if admin.org == DEFAULT_ORG:
        rows = await parts.orgs.page(limit=limit + 1, after=after)
    else:
        rows = [] if after is not None else [await parts.orgs.retrieve(admin.org)]
    return json_response(page([org_object(row, parts.config) for row in rows], limit))


@router.get("/{org}")
async def retrieve_organization(org: str, parts: PartsDep, admin: AdminDep) -> Response:
    """What it may take; in `budget_status` what is spent, held and left of its budget now."""
    if org != admin.org:
        _only_for_the_platform(admin)
    row = await parts.orgs.retrieve(org)
    status = await parts.budgets.status(row.id, "org", org_terms(row.id, row.terms, parts.config).budget)
    return json_response({**org_object(row, parts.config), "budget_status": status})


@router.post("/{org}")
async def update_organization(org: str, body: OrgUpdate, parts: PartsDep, admin: AdminDep) -> Response:
    """Change it. What is not given stays, null takes away; it holds from its keys' next requests on."""
    _only_for_the_platform(admin)
    if owns_org(parts.config, org):
        raise managed("org")
    row = await parts.orgs.update(org, **given(body))
    await parts.changes.announce(Change(org))
    return json_response(org_object(row, parts.config))


def _only_for_the_platform(admin: Principal) -> None:
    if admin.org != DEFAULT_ORG:
        raise PermissionDeniedError(
            "Organisations are made and changed by the platform's admins.", code="platform_admin_required"
        )
