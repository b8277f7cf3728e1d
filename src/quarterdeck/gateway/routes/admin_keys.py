"""`/admin/keys`: API keys. A secret is only in the response that created it.

An admin manages the keys of its organisation; an admin of the platform those of any (`org`).
"""

import time
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Response

from quarterdeck import ids
from quarterdeck.gateway.dependencies import (
    AdminDep,
    ManagedOrgDep,
    OrgParameter,
    Parts,
    PartsDep,
    require_platform_admin,
)
from quarterdeck.gateway.http.responses import json_response
from quarterdeck.gateway.routes.known_filters import refuse_unknown_filters
from quarterdeck.resources.tenancy.changes import Change
from quarterdeck.resources.tenancy.objects import is_key_in_config, key_object, managed, page, refuse_key_fields
from quarterdeck.resources.tenancy.principals import key_terms
from quarterdeck.resources.tenancy.requests import KeyRequest, KeyUpdate, given
from quarterdeck.store.keys import KeyRow
from quarterdeck.store.orgs import DEFAULT_ORG

router = APIRouter(prefix="/admin/keys")

DAY = 86_400


async def _scope(managed_org: ManagedOrgDep, admin: AdminDep, org: OrgParameter = None) -> str | None:
    """The organisation of the key in the path. None: any, for an admin of the platform who names none."""
    return None if org is None and admin.org == DEFAULT_ORG else managed_org


ScopeDep = Annotated[str | None, Depends(_scope)]


async def _retrieve(key_id: str, org: str | None, parts: Parts) -> KeyRow:
    """Raises NotFoundError."""
    if org is None and (row := (await parts.keys.retrieve_all([key_id])).get(key_id)) is not None:
        return row
    return await parts.keys.retrieve(key_id, org=org or DEFAULT_ORG)


@router.post("")
async def create_key(body: KeyRequest, parts: PartsDep, managed_org: ManagedOrgDep, admin: AdminDep) -> Response:
    """Create a key in the admin's organisation, or in `org`. Its secret is returned here and nowhere else."""
    org = body.org or managed_org
    if org != managed_org:
        require_platform_admin(admin, param="org")
        await parts.orgs.retrieve(org)
    refuse_key_fields(parts.config, org, body.name, body.model_fields_set)
    secret = ids.api_key()
    row = await parts.keys.create(
        secret=secret,
        org=org,
        is_admin=body.admin,
        name=body.name,
        team=body.team,
        limits=body.limits,
        budget=body.budget,
        models=body.models,
        priority=body.priority,
        tags=body.tags,
        content=body.content,
        expires=_expiry(body.expires_in_days),
    )
    terms, _ = key_terms(row, parts.config)
    await parts.changes.announce(Change(row.org, key=row.id), unspent=terms.budget)
    return json_response({**key_object(row, parts.config), "key": secret}, 201)


@router.get("")
async def list_keys(
    parts: PartsDep,
    org: ManagedOrgDep,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    after: str | None = None,
    team: str | None = None,
) -> Response:
    """List keys, newest first, of all teams or of `team`."""
    found = await parts.keys.list(org=org, limit=limit, after=after, team=team)
    if not found.rows and after is None:
        await refuse_unknown_filters(parts, org, team=team)
    data = page([key_object(row, parts.config) for row in found.rows], limit)
    return json_response({**data, "has_more": found.has_more})


@router.get("/{key_id}")
async def retrieve_key(key_id: str, parts: PartsDep, org: ScopeDep) -> Response:
    """Retrieve a key without its secret. `budget_status`: what is spent, held and left of its budget now."""
    row = await _retrieve(key_id, org, parts)
    terms, _ = key_terms(row, parts.config)
    status = await parts.budgets.status(row.org, f"key:{row.id}", terms.budget)
    return json_response({**key_object(row, parts.config), "budget_status": status})


@router.post("/{key_id}")
async def update_key(key_id: str, body: KeyUpdate, parts: PartsDep, org: ScopeDep) -> Response:
    """Update a key. Fields left out keep their value, null removes it. Takes effect with the key's next request."""
    changes = given(body)
    row = await _retrieve(key_id, org, parts)
    refuse_key_fields(parts.config, row.org, row.name, changes)
    if "name" in changes and changes["name"] != row.name and is_key_in_config(parts.config, row.org, row.name):
        raise managed(f"keys.{row.name}", param="name")  # under another name it would escape the file's limits
    if "expires_in_days" in changes:
        del changes["expires_in_days"]
        changes["expires"] = _expiry(body.expires_in_days)
    if "tags" in changes:
        changes["tags"] = body.tags or ()
    row = await parts.keys.update(row.id, org=row.org, **changes)
    await parts.changes.announce(Change(row.org, key=row.id))
    return json_response(key_object(row, parts.config))


@router.post("/{key_id}/rotate")
async def rotate_key(key_id: str, parts: PartsDep, org: ScopeDep) -> Response:
    """Replace a key's secret. Limits, budget and usage stay; the old secret is refused at once."""
    row = await _retrieve(key_id, org, parts)
    secret = ids.api_key()
    row = await parts.keys.rotate(row.id, secret=secret, org=row.org)
    await parts.changes.announce(Change(row.org, key=row.id))
    return json_response({**key_object(row, parts.config), "key": secret})


@router.delete("/{key_id}")
async def delete_key(key_id: str, parts: PartsDep, org: ScopeDep) -> Response:
    """Revoke a key. It is refused from its next request on, and is still listed, as revoked."""
    row = await _retrieve(key_id, org, parts)
    row = await parts.keys.revoke(row.id, org=row.org)
    await parts.changes.announce(Change(row.org, key=row.id))
    return json_response({"id": row.id, "object": "api_key", "deleted": True})


def _expiry(days: float | None) -> float | None:
    """Unix seconds."""
    return None if days is None else time.time() + days * DAY
