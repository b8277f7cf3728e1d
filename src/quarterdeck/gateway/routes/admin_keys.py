"""`/admin/keys`: API keys. A secret is only in the response that created it."""

import time
from typing import Annotated

from fastapi import APIRouter, Query, Response

from quarterdeck import ids
from quarterdeck.errors import PermissionDeniedError
from quarterdeck.gateway.dependencies import AdminDep, PartsDep
from quarterdeck.gateway.http.responses import json_response
from quarterdeck.resources.tenancy.changes import Change
from quarterdeck.resources.tenancy.objects import is_key_in_config, key_object, managed, page, refuse_key_fields
from quarterdeck.resources.tenancy.principals import key_terms
from quarterdeck.resources.tenancy.requests import KeyRequest, KeyUpdate, given
from quarterdeck.store.orgs import DEFAULT_ORG

router = APIRouter(prefix="/admin/keys")

DAY = 86_400


@router.post("")
async def create_key(body: KeyRequest, parts: PartsDep, admin: AdminDep) -> Response:
    """Create a key in the admin's organisation. Its secret is returned here and nowhere else."""
    org = body.org or admin.org
    if org != admin.org:
        if admin.org != DEFAULT_ORG:
            raise PermissionDeniedError("This key can only create keys in its own organisation.", param="org")
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
    admin: AdminDep,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    after: str | None = None,
    team: str | None = None,
) -> Response:
    """List keys, newest first, of all teams or of `team`."""
    found = await parts.keys.list(org=admin.org, limit=limit, after=after, team=team)
    data = page([key_object(row, parts.config) for row in found.rows], limit)
    return json_response({**data, "has_more": found.has_more})


@router.get("/{key_id}")
async def retrieve_key(key_id: str, parts: PartsDep, admin: AdminDep) -> Response:
    """Retrieve a key without its secret. `budget_status`: what is spent, held and left of its budget now."""
    row = await parts.keys.retrieve(key_id, org=admin.org)
    terms, _ = key_terms(row, parts.config)
    status = await parts.budgets.status(row.org, f"key:{row.id}", terms.budget)
    return json_response({**key_object(row, parts.config), "budget_status": status})


@router.post("/{key_id}")
async def update_key(key_id: str, body: KeyUpdate, parts: PartsDep, admin: AdminDep) -> Response:
    """Update a key. Fields left out keep their value, null removes it. Takes effect with the key's next request."""
    changes = given(body)
    row = await parts.keys.retrieve(key_id, org=admin.org)
    refuse_key_fields(parts.config, row.org, row.name, changes)
    if "name" in changes and changes["name"] != row.name and is_key_in_config(parts.config, row.org, row.name):
        raise managed(f"keys.{row.name}", param="name")  # under another name it would escape the file's limits
    if "expires_in_days" in changes:
        del changes["expires_in_days"]
        changes["expires"] = _expiry(body.expires_in_days)
    if "tags" in changes:
        changes["tags"] = body.tags or ()
    row = await parts.keys.update(key_id, org=admin.org, **changes)
    await parts.changes.announce(Change(row.org, key=row.id))
    return json_response(key_object(row, parts.config))


@router.post("/{key_id}/rotate")
async def rotate_key(key_id: str, parts: PartsDep, admin: AdminDep) -> Response:
    """Replace a key's secret. Limits, budget and usage stay; the old secret is refused at once."""
    secret = ids.api_key()
    row = await parts.keys.rotate(key_id, secret=secret, org=admin.org)
    await parts.changes.announce(Change(row.org, key=row.id))
    return json_response({**key_object(row, parts.config), "key": secret})


@router.delete("/{key_id}")
async def delete_key(key_id: str, parts: PartsDep, admin: AdminDep) -> Response:
    """Revoke a key. It is refused from its next request on, and is still listed, as revoked."""
    row = await parts.keys.revoke(key_id, org=admin.org)
    await parts.changes.announce(Change(row.org, key=row.id))
    return json_response({"id": row.id, "object": "api_key", "deleted": True})


def _expiry(days: float | None) -> float | None:
    """Unix seconds."""
    return None if days is None else time.time() + days * DAY
