"""`/v1/prompts`: prompts and their history. Keys use and read those of their teams; admins change them."""

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response

from quarterdeck.gateway.dependencies import AdminDep, MemberDep, Parts, PartsDep
from quarterdeck.gateway.http.responses import json_response
from quarterdeck.gateway.routes.prompt_access import Cursor, Limit, Org, announce, org_of, readable_prompt
from quarterdeck.resources.prompts.objects import event_object, prompt_object
from quarterdeck.resources.prompts.requests import (
    PromptCreate,
    PromptUpdate,
    check_label,
)
from quarterdeck.resources.tenancy.objects import page
from quarterdeck.store.prompt_rows import PromptRow

router = APIRouter(prefix="/v1/prompts")


@router.post("")
async def create_prompt(body: PromptCreate, parts: PartsDep, admin: AdminDep, org: Org = None) -> Response:
    """Create a prompt with its first version, labelled `production` unless `labels` says otherwise."""
    owner = org_of(admin, org)
    if owner != admin.org:
        await parts.orgs.retrieve(owner)
    for label in body.labels:
        check_label(label)
    spec = await asyncio.to_thread(body.spec)
    row = await parts.prompts.create(
        body.name,
        spec,
        org=owner,
        author=admin.key,
        description=body.description,
        teams=body.teams,
        message=body.message,
        labels=body.labels,
    )
    await announce(parts, row)
    return json_response(await _shown(parts, row), 201)


@router.get("")
async def list_prompts(
    parts: PartsDep,
    member: MemberDep,
    limit: Limit = 20,
    after: Cursor = None,
    name: Annotated[str | None, Query(max_length=128)] = None,
    archived: bool = False,
    org: Org = None,
) -> Response:
    """List the prompts that the key may use, by name. `archived`: also archived ones."""
    team = None if member.is_admin else member.team
    found = await parts.prompts.list(
        org=org_of(member, org), limit=limit, after=after, name=name, team=team, archived=archived
    )
    labels = await parts.prompts.labels([row.id for row in found.rows])
    data = page([prompt_object(row, labels.get(row.id, ())) for row in found.rows], limit)
    return json_response({**data, "has_more": found.has_more})


@router.get("/{prompt}")
async def retrieve_prompt(prompt: str, parts: PartsDep, member: MemberDep, org: Org = None) -> Response:
    """Retrieve a prompt with its labels."""
    return json_response(await _shown(parts, await readable_prompt(parts, prompt, member, org)))


@router.post("/{prompt}")
async def update_prompt(prompt: str, body: PromptUpdate, parts: PartsDep, admin: AdminDep, org: Org = None) -> Response:
    """Update description and teams, archive or unarchive. Its content changes by new versions."""
    row = await parts.prompts.update(prompt, org=org_of(admin, org), author=admin.key, **body.changes())
    await announce(parts, row)
    return json_response(await _shown(parts, row))


@router.delete("/{prompt}")
async def delete_prompt(prompt: str, parts: PartsDep, admin: AdminDep, org: Org = None) -> Response:
    """Delete a prompt with its versions and labels. Requests that name it are refused from now on. A new prompt of this
    name continues its numbers, as records in the ledger name them."""
    row = await parts.prompts.delete(prompt, org=org_of(admin, org), author=admin.key)
    await announce(parts, row)
    return json_response({"id": row.id, "object": "prompt", "deleted": True})


@router.get("/{prompt}/events")
async def list_prompt_events(
    prompt: str, parts: PartsDep, member: MemberDep, limit: Limit = 20, after: Cursor = None, org: Org = None
) -> Response:
    """List what was changed, by whom and why, newest first; including rollbacks that the platform made by itself."""
    row = await readable_prompt(parts, prompt, member, org)
    found = await parts.prompts.events(row.id, org=row.org, limit=limit, after=after)
    data = page([event_object(each) for each in found.rows], limit)
    return json_response({**data, "has_more": found.has_more})


async def _shown(parts: Parts, row: PromptRow) -> dict[str, Any]:
    return prompt_object(row, (await parts.prompts.labels([row.id])).get(row.id, ()))
