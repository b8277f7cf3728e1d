"""`/v1/prompts/{prompt}/versions`: versions of a prompt, their differences, and what one renders."""

import asyncio
from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response

from quarterdeck.errors import BadRequestError
from quarterdeck.gateway.dependencies import AdminDep, MemberDep, Parts, PartsDep
from quarterdeck.gateway.http.responses import json_response
from quarterdeck.gateway.routes.prompt_access import Cursor, Limit, Org, announce, number_of, org_of, readable_prompt
from quarterdeck.inference.prompts.reference import DEFAULT_LABEL
from quarterdeck.resources.prompts.files import changes, diff_text
from quarterdeck.resources.prompts.objects import version_object
from quarterdeck.resources.prompts.requests import (
    RenderRequest,
    VersionCreate,
    check_label,
)
from quarterdeck.resources.tenancy.objects import page
from quarterdeck.store.prompt_rows import PromptRow, VersionRow
from quarterdeck.templating.errors import RenderError
from quarterdeck.templating.prompt import CompiledPrompt
from quarterdeck.templating.variables import VariablesError

router = APIRouter(prefix="/v1/prompts")


@router.post("/{prompt}/versions")
async def create_prompt_version(
    prompt: str, body: VersionCreate, parts: PartsDep, admin: AdminDep, org: Org = None
) -> Response:
    """Create a version. Content that equals the newest version's makes none: that one is returned, with status 200."""
    for label in body.labels:
        check_label(label)
    spec = await asyncio.to_thread(body.spec)
    owner = org_of(admin, org)
    version, is_new = await parts.prompts.add_version(
        prompt, spec, org=owner, author=admin.key, message=body.message, labels=body.labels, base=body.base
    )
    row = await parts.prompts.retrieve(version.prompt, org=owner)
    await announce(parts, row)
    return json_response(version_object(version, row), 201 if is_new else 200)


@router.get("/{prompt}/versions")
async def list_prompt_versions(
    prompt: str, parts: PartsDep, member: MemberDep, limit: Limit = 20, after: Cursor = None, org: Org = None
) -> Response:
    """List versions, newest first. `after` is a version's number or id."""
    row = await readable_prompt(parts, prompt, member, org)
    number = None if after is None else number_of(after, "after")
    found = await parts.prompts.versions(row.id, org=row.org, limit=limit, after=number)
    data = page([version_object(each, row) for each in found.rows], limit)
    return json_response({**data, "has_more": found.has_more})


@router.get("/{prompt}/versions/{version}")
async def retrieve_prompt_version(
    prompt: str, version: str, parts: PartsDep, member: MemberDep, org: Org = None
) -> Response:
    """Retrieve a version by its number, or the newest one as `latest`."""
    row = await readable_prompt(parts, prompt, member, org)
    number = row.latest if version == "latest" else number_of(version, "version")
    return json_response(version_object(await parts.prompts.version(row.id, number, org=row.org), row))


@router.get("/{prompt}/diff")
async def diff_prompt_versions(
    prompt: str,
    parts: PartsDep,
    member: MemberDep,
    before: Annotated[int, Query(ge=1, le=2**31 - 1, alias="from")],
    after: Annotated[int, Query(ge=1, le=2**31 - 1, alias="to")],
    org: Org = None,
) -> Response:
    """Compare two versions: the members that differ, and a unified diff of both as YAML."""
    row = await readable_prompt(parts, prompt, member, org)
    old, new = [await parts.prompts.version(row.id, number, org=row.org) for number in (before, after)]
    names = f"{row.name}@{before}", f"{row.name}@{after}"
    text = await asyncio.to_thread(diff_text, old.content, new.content, names=names)
    return json_response(
        {
            "object": "prompt.diff",
            "prompt": row.id,
            "name": row.name,
            "from": before,
            "to": after,
            "changes": changes(old.content, new.content),
            "text": text,
        }
    )


@router.post("/{prompt}/render")
async def render_prompt(
    prompt: str, body: RenderRequest, parts: PartsDep, member: MemberDep, org: Org = None
) -> Response:
    """Render a version without calling a model. Of a label's split, the first version is rendered."""
    row = await readable_prompt(parts, prompt, member, org)
    version = await _version_for(parts, row, body)
    compiled = await asyncio.to_thread(CompiledPrompt, version.spec)
    try:
        rendered = await asyncio.to_thread(_rendered, compiled, body.variables)
    except VariablesError as error:
        raise BadRequestError(
            f"Invalid variables for the prompt '{row.name}@{version.version}': {error}.",
            param=f"variables.{error.names[0][:64]}",
            code="invalid_prompt_variables",
        ) from None
    except RenderError as error:
        raise BadRequestError(
            f"The prompt '{row.name}@{version.version}' can't be rendered with these variables: {error}.",
            param="variables",
            code="prompt_not_rendered",
        ) from None
    spec = compiled.spec
    return json_response(
        {
            "object": "prompt.rendering",
            "prompt": row.id,
            "name": row.name,
            "version": version.version,
            **rendered,
            "model": spec.model,
            "parameters": spec.parameters,
            "response_format": spec.response_format,
            "tools": spec.tools,
            "tool_choice": spec.tool_choice,
        }
    )


def _rendered(compiled: CompiledPrompt, variables: Mapping[str, Any]) -> dict[str, Any]:
    if compiled.spec.type == "text":
        return {"text": compiled.text(variables)}
    return {"messages": compiled.messages(variables)}


async def _version_for(parts: Parts, row: PromptRow, body: RenderRequest) -> VersionRow:
    if body.version is not None and body.label is not None:
        raise BadRequestError("Give `version` or `label`, not both.", param="label", code="invalid_value")
    number = body.version
    if number is None:
        known = {each.label: each for each in (await parts.prompts.labels([row.id])).get(row.id, ())}
        label = body.label or DEFAULT_LABEL
        if label in known:
            number = known[label].spec.targets[0].version
        elif label == "latest":
            number = row.latest
        else:
            raise BadRequestError(
                f"The prompt '{row.name}' has no label '{label}'.", param="label", code="label_not_found"
            )
    return await parts.prompts.version(row.id, number, org=row.org)
