"""`/v1/prompts/{prompt}/labels`: labels point at versions, at several by weight for a canary. Admins set them."""

import re

from fastapi import APIRouter, Response

from quarterdeck.errors import BadRequestError
from quarterdeck.gateway.dependencies import AdminDep, MemberDep, PartsDep
from quarterdeck.gateway.http.responses import json_response
from quarterdeck.gateway.routes.prompt_access import Org, announce, org_of, readable_prompt
from quarterdeck.resources.prompts.objects import label_object
from quarterdeck.resources.prompts.requests import (
    LabelSet,
    RollBack,
    check_label,
)
from quarterdeck.resources.tenancy.objects import page
from quarterdeck.settings.prompts import LABEL_PATTERN

router = APIRouter(prefix="/v1/prompts")


@router.get("/{prompt}/labels")
async def list_prompt_labels(prompt: str, parts: PartsDep, member: MemberDep, org: Org = None) -> Response:
    """List all labels of a prompt by name."""
    row = await readable_prompt(parts, prompt, member, org)
    labels = (await parts.prompts.labels([row.id])).get(row.id, ())
    return json_response(page([label_object(each, row) for each in labels], max(len(labels), 1)))


@router.post("/{prompt}/labels/{label}")
async def set_prompt_label(
    prompt: str, label: str, body: LabelSet, parts: PartsDep, admin: AdminDep, org: Org = None
) -> Response:
    """Point a label at a version, or at several by weight (a canary). Takes effect within a second everywhere."""
    _check_label(label)
    owner = org_of(admin, org)
    made = await parts.prompts.set_label(prompt, label, body.spec(), org=owner, author=admin.key, reason=body.reason)
    row = await parts.prompts.retrieve(made.prompt, org=owner)
    await announce(parts, row)
    return json_response(label_object(made, row))


@router.delete("/{prompt}/labels/{label}")
async def delete_prompt_label(prompt: str, label: str, parts: PartsDep, admin: AdminDep, org: Org = None) -> Response:
    """Delete a label. Requests that name it are refused from now on."""
    owner = org_of(admin, org)
    row = await parts.prompts.retrieve(prompt, org=owner)
    await parts.prompts.delete_label(row.id, label, org=owner, author=admin.key)
    await announce(parts, row)
    return json_response({"id": label, "object": "prompt.label", "prompt": row.id, "deleted": True})


@router.post("/{prompt}/labels/{label}/rollback")
async def roll_back_prompt_label(
    prompt: str, label: str, parts: PartsDep, admin: AdminDep, body: RollBack | None = None, org: Org = None
) -> Response:
    """Point a label at the version that it pointed at before: of a split, its first one."""
    body = body or RollBack()
    owner = org_of(admin, org)
    made = await parts.prompts.roll_back(
        prompt, label, org=owner, author=admin.key, version=body.version, reason=body.reason
    )
    row = await parts.prompts.retrieve(made.prompt, org=owner)
    await announce(parts, row)
    return json_response(label_object(made, row))


def _check_label(label: str) -> None:
    if not re.fullmatch(LABEL_PATTERN, label):
        raise BadRequestError(
            "Invalid label: up to 36 lower-case letters, digits, `.`, `_` and `-`, beginning with a letter.",
            param="label",
            code="invalid_value",
        )
    check_label(label)
