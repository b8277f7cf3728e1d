"""`/admin/organizations`: organisations, and the limits and budget of each as a whole.

Admins of the platform's own organisation (`default`) create, update and delete the others; an admin of another
organisation can only read its own.
"""

from typing import Annotated

from fastapi import APIRouter, Query, Response

from quarterdeck.errors import ConflictError
from quarterdeck.gateway.dependencies import AdminDep, PartsDep, require_platform_admin
from quarterdeck.gateway.http.responses import json_response
from quarterdeck.resources.tenancy.changes import Change
from quarterdeck.resources.tenancy.objects import is_org_in_config, managed, org_object, page
from quarterdeck.resources.tenancy.principals import org_terms
from quarterdeck.resources.tenancy.requests import OrgRequest, OrgUpdate, given
from quarterdeck.store.orgs import DEFAULT_ORG

router = APIRouter(prefix="/admin/organizations")


@router.post("")
async def create_organization(body: OrgRequest, parts: PartsDep, admin: AdminDep) -> Response:
    """Create an organisation. Create its first admin key by `POST /admin/keys` with `org` and `admin`."""
    require_platform_admin(admin)
    row = await parts.orgs.create(
        body.id, limits=body.limits, budget=body.budget, content=body.content, content_days=body.content_days
    )
    await parts.changes.announce(Change(row.id), unspent=row.terms.budget)
    return json_response(org_object(row, parts.config), 201)


@router.get("")
async def list_organizations(
    parts: PartsDep,
    admin: AdminDep,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    after: str | None = None,
) -> Response:
    """List organisations by name: all for admins of the platform, else the admin's own."""
    if admin.org == DEFAULT_ORG:
        rows = await parts.orgs.page(limit=limit + 1, after=after)
    else:
        rows = [] if after is not None else [await parts.orgs.retrieve(admin.org)]
    return json_response(page([org_object(row, parts.config) for row in rows], limit))


@router.get("/{org}")
async def retrieve_organization(org: str, parts: PartsDep, admin: AdminDep) -> Response:
    """Retrieve an organisation. `budget_status`: what is spent, held and left of its budget now."""
    if org != admin.org:
        require_platform_admin(admin)
    row = await parts.orgs.retrieve(org)
    status = await parts.budgets.status(row.id, "org", org_terms(row.id, row.terms, parts.config).budget)
    return json_response({**org_object(row, parts.config), "budget_status": status})


@router.post("/{org}")
async def update_organization(org: str, body: OrgUpdate, parts: PartsDep, admin: AdminDep) -> Response:
    """Update an organisation. Fields left out keep their value, null removes it. Takes effect with its keys' next
    requests."""
    require_platform_admin(admin)
    if is_org_in_config(parts.config, org):
        raise managed("org")
    row = await parts.orgs.update(org, **given(body))
    await parts.changes.announce(Change(org))
    return json_response(org_object(row, parts.config))


@router.delete("/{org}")
async def delete_organization(org: str, parts: PartsDep, admin: AdminDep, revoke_keys: bool = False) -> Response:
    """Delete an organisation whose keys are all revoked, or revoke them with it (`revoke_keys`). Its teams, prompts,
    webhooks and stored inputs and outputs are deleted; its usage stays in the ledger, and its id is not used again."""
    require_platform_admin(admin)
    if org == DEFAULT_ORG:
        raise ConflictError("The platform's own organisation can't be deleted.", param="org", code="org_required")
    revoked = await parts.org_deletion.delete(org, revoke_keys=revoke_keys, author=admin.key)
    await parts.changes.announce(Change(org))
    return json_response({"id": org, "object": "organization", "deleted": True, "revoked_keys": len(revoked)})
