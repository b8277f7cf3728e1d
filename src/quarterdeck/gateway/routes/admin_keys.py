"""`/admin/keys`: API keys, made, listed and revoked with an admin key.

A secret is in one answer: the one that made it.
"""

import time
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from quarterdeck import ids
from quarterdeck.gateway.dependencies import AdminDep, PartsDep
from quarterdeck.gateway.responses import json_response
from quarterdeck.settings.limits import Limits
from quarterdeck.store.keys import KeyRow
from quarterdeck.store.orgs import DEFAULT_TEAM

router = APIRouter(prefix="/admin/keys")

DAY = 86_400

Name = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[^\x00-\x1f\x7f]+$")]
ModelName = Annotated[str, Field(min_length=1, max_length=256)]


class KeyRequest(BaseModel):
    """The body of `POST /admin/keys`."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    name: Name
    """For people and for `keys:` in quarterdeck.yaml. Need not be unique."""
    team: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")] = DEFAULT_TEAM
    """Whose usage it counts as; made where it does not exist."""
    limits: Limits | None = None
    """Its own limits. None: those of quarterdeck.yaml."""
    models: Annotated[list[ModelName], Field(max_length=1000)] | None = None
    """The names it may use. None: all."""
    expires_in_days: Annotated[float, Field(gt=0, le=36_500)] | None = None
    """After which it is refused. None: never."""
    admin: bool = False
    """Whether it may use this API."""


@router.post("")
async def create_key(body: KeyRequest, parts: PartsDep, admin: AdminDep) -> Response:
    """Make a key in the admin's org; the answer is the only place where it is shown."""
    secret = ids.api_key()
    row = await parts.keys.create(
        secret=secret,
        name=body.name,
        org=admin.org,
        team=body.team,
        limits=body.limits,
        models=body.models,
        expires=None if body.expires_in_days is None else time.time() + body.expires_in_days * DAY,
        is_admin=body.admin,
    )
    await parts.revisions.bump(row.org)
    return json_response({**_key(row), "key": secret}, 201)


@router.get("")
async def list_keys(
    parts: PartsDep,
    admin: AdminDep,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    after: str | None = None,
    team: str | None = None,
) -> Response:
    """Newest first."""
    page = await parts.keys.list(org=admin.org, limit=limit, after=after, team=team)
    data = [_key(row) for row in page.rows]
    return json_response(
        {
            "object": "list",
            "data": data,
            "first_id": data[0]["id"] if data else None,
            "last_id": data[-1]["id"] if data else None,
            "has_more": page.has_more,
        }
    )


@router.get("/{key_id}")
async def retrieve_key(key_id: str, parts: PartsDep, admin: AdminDep) -> Response:
    """All about a key but the key."""
    return json_response(_key(await parts.keys.retrieve(key_id, org=admin.org)))


@router.delete("/{key_id}")
async def delete_key(key_id: str, parts: PartsDep, admin: AdminDep) -> Response:
    """Revoke it. It is refused from its next request on, and stays in the list as revoked."""
    row = await parts.keys.revoke(key_id, org=admin.org)
    parts.authenticator.forget(row.id)
    await parts.revisions.bump(row.org)
    return json_response({"id": row.id, "object": "api_key", "deleted": True})


def _key(row: KeyRow) -> dict[str, Any]:
    return {
        "id": row.id,
        "object": "api_key",
        "name": row.name,
        "team": row.team,
        "hint": row.hint,
        "limits": None if row.limits is None else row.limits.model_dump(exclude_none=True),
        "models": None if row.models is None else sorted(row.models),
        "admin": row.is_admin,
        "created": int(row.created),
        "expires": None if row.expires is None else int(row.expires),
        "revoked": None if row.revoked is None else int(row.revoked),
    }
