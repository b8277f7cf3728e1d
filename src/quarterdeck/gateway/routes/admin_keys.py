"""`/admin/keys`: API keys, made, changed, replaced and revoked with an admin key.

A secret is in one answer: the one that made it.
"""

import time
from typing import Annotated

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, ConfigDict, Field, field_validator

from quarterdeck import ids
from quarterdeck.errors import PermissionDeniedError
from quarterdeck.gateway.dependencies import AdminDep, PartsDep
from quarterdeck.gateway.http.responses import json_response
from quarterdeck.resources.tenancy.changes import Change
from quarterdeck.resources.tenancy.objects import given, key_object, managed, owns_key, page, refuse_key_fields
from quarterdeck.resources.tenancy.principals import key_terms
from quarterdeck.settings.limits import Budget, Limits
from quarterdeck.settings.tenancy import Priority, Tags, TeamName
from quarterdeck.store.orgs import DEFAULT_ORG, DEFAULT_TEAM

router = APIRouter(prefix="/admin/keys")

DAY = 86_400

Name = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[^\x00-\x1f\x7f]+$")]
ModelName = Annotated[str, Field(min_length=1, max_length=256)]
Models = Annotated[list[ModelName], Field(max_length=1000)]
Days = Annotated[float, Field(gt=0, le=36_500)]


class KeyRequest(BaseModel):
    """The body of `POST /admin/keys`."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    name: Name
    """For people and for `keys:` in quarterdeck.yaml. Need not be unique."""
    org: TeamName | None = None
    """Whose key it is. None: the admin's own; another one may be named by the platform's admins only."""
    team: TeamName = DEFAULT_TEAM
    """Whose usage it counts as; made where it does not exist."""
    limits: Limits | None = None
    """Its own limits. None: those of quarterdeck.yaml."""
    budget: Budget | None = None
    """Money it may spend. None: what its team and organisation may."""
    models: Models | None = None
    """The names it may use. None: all."""
    priority: Priority | None = None
    """0 to 9; under saturation the higher goes first. None: its team's."""
    tags: Tags = ()
    """Put on each of its records and traces, for reports."""
    expires_in_days: Days | None = None
    """After which it is refused. None: never."""
    admin: bool = False
    """Whether it may use this API."""


class KeyUpdate(BaseModel):
    """The body of `POST /admin/keys/{key_id}`: what is not given stays as it is, null takes it away."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    name: Name | None = None
    """Another name."""
    team: TeamName | None = None
    """Another team; what was used before stays the old one's."""
    limits: Limits | None = None
    """Its own limits, all of them anew. null: those of quarterdeck.yaml."""
    budget: Budget | None = None
    """Money it may spend. null: what its team and organisation may."""
    models: Models | None = None
    """The names it may use. null: all."""
    priority: Priority | None = None
    """0 to 9. null: its team's."""
    tags: Tags | None = None
    """All of them anew. null: none."""
    expires_in_days: Days | None = None
    """From now on. null: never."""

    @field_validator("name", "team")
    @classmethod
    def _is_not_null(cls, value: str | None) -> str:
        if value is None:  # left out it is not validated
            raise ValueError("it can't be taken away")
        return value


@router.post("")
async def create_key(body: KeyRequest, parts: PartsDep, admin: AdminDep) -> Response:
    """Make a key in the admin's org; the answer is the only place where it is shown."""
    org = body.org or admin.org
    if org != admin.org:
        if admin.org != DEFAULT_ORG:
            raise PermissionDeniedError("This key may only make keys of its own organisation.", param="org")
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
    """Newest first, of all teams or of `team`."""
    found = await parts.keys.list(org=admin.org, limit=limit, after=after, team=team)
    data = page([key_object(row, parts.config) for row in found.rows], limit)
    return json_response({**data, "has_more": found.has_more})


@router.get("/{key_id}")
async def retrieve_key(key_id: str, parts: PartsDep, admin: AdminDep) -> Response:
    """All about a key but the key; in `budget_status` what is spent, held and left of its budget now."""
    row = await parts.keys.retrieve(key_id, org=admin.org)
    terms, _ = key_terms(row, parts.config)
    status = await parts.budgets.status(row.org, f"key:{row.id}", terms.budget)
    return json_response({**key_object(row, parts.config), "budget_status": status})


@router.post("/{key_id}")
async def update_key(key_id: str, body: KeyUpdate, parts: PartsDep, admin: AdminDep) -> Response:
    """Change it. What is not given stays, null takes away; it holds from the key's next request on."""
    changes = given(body)
    row = await parts.keys.retrieve(key_id, org=admin.org)
    refuse_key_fields(parts.config, row.org, row.name, changes)
    if "name" in changes and changes["name"] != row.name and owns_key(parts.config, row.org, row.name):
        raise managed(f"keys.{row.name}", param="name")  # by another name it would leave the file's limits behind
    if "expires_in_days" in changes:
        changes["expires"] = _expiry(changes.pop("expires_in_days"))
    if "tags" in changes:
        changes["tags"] = changes["tags"] or ()
    row = await parts.keys.update(key_id, org=admin.org, **changes)
    await parts.changes.announce(Change(row.org, key=row.id))
    return json_response(key_object(row, parts.config))


@router.post("/{key_id}/rotate")
async def rotate_key(key_id: str, parts: PartsDep, admin: AdminDep) -> Response:
    """Another secret for the same key, with its limits, budget and usage; the old secret is refused at once."""
    secret = ids.api_key()
    row = await parts.keys.rotate(key_id, secret=secret, org=admin.org)
    await parts.changes.announce(Change(row.org, key=row.id))
    return json_response({**key_object(row, parts.config), "key": secret})


@router.delete("/{key_id}")
async def delete_key(key_id: str, parts: PartsDep, admin: AdminDep) -> Response:
    """Revoke it. It is refused from its next request on, and stays in the list as revoked."""
    row = await parts.keys.revoke(key_id, org=admin.org)
    await parts.changes.announce(Change(row.org, key=row.id))
    return json_response({"id": row.id, "object": "api_key", "deleted": True})


def _expiry(days: float | None) -> float | None:
    return None if days is None else time.time() + days * DAY
