"""`/v1/prompts`: prompts, their versions and labels. Keys use and read those of their teams; admins change them.

`{prompt}` is a name or an id; a name with a `/` can only be given as the id. `org` names another organisation, for
admins of the platform.
"""

import asyncio
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response

from quarterdeck.accounting.principal import Principal
from quarterdeck.errors import BadRequestError, PermissionDeniedError
from quarterdeck.gateway.dependencies import AdminDep, MemberDep, Parts, PartsDep
from quarterdeck.gateway.http.responses import json_response
from quarterdeck.inference.prompts.reference import DEFAULT_LABEL
from quarterdeck.resources.prompts.answer_schemas import check_of, count_valid
from quarterdeck.resources.prompts.changes import PromptChange
from quarterdeck.resources.prompts.comparison import compare, comparison_object
from quarterdeck.resources.prompts.files import changes, diff_text
from quarterdeck.resources.prompts.objects import event_object, label_object, prompt_object, version_object
from quarterdeck.resources.prompts.requests import (
    LabelSet,
    PromptCreate,
    PromptUpdate,
    RenderRequest,
    RollBack,
    VersionCreate,
    check_label,
)
from quarterdeck.resources.prompts.sampling import Observed, samples_of
from quarterdeck.resources.tenancy.objects import page
from quarterdeck.settings.prompts import LABEL_PATTERN, PromptSpec
from quarterdeck.store.orgs import DEFAULT_ORG
from quarterdeck.store.prompt_changes import no_such_prompt
from quarterdeck.store.prompt_results import Result
from quarterdeck.store.prompt_rows import PromptRow, VersionRow
from quarterdeck.templating.errors import RenderError
from quarterdeck.templating.prompt import CompiledPrompt
from quarterdeck.templating.variables import VariablesError

router = APIRouter(prefix="/v1/prompts")

Org = Annotated[str | None, Query(min_length=1, max_length=64)]
Limit = Annotated[int, Query(ge=1, le=100)]
Cursor = Annotated[str | None, Query(max_length=200)]
Version = Annotated[int, Query(ge=1, le=2**31 - 1)]

MAX_CHECKED = 1000
"""Captured answers of a version that a comparison checks against its schema: the newest."""


@router.post("")
async def create_prompt(body: PromptCreate, parts: PartsDep, admin: AdminDep, org: Org = None) -> Response:
    """Create a prompt with its first version, labelled `production` unless `labels` says otherwise."""
    owner = _org(admin, org)
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
    await _announce(parts, row)
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
        org=_org(member, org), limit=limit, after=after, name=name, team=team, archived=archived
    )
    labels = await parts.prompts.labels([row.id for row in found.rows])
    data = page([prompt_object(row, labels.get(row.id, ())) for row in found.rows], limit)
    return json_response({**data, "has_more": found.has_more})


@router.get("/{prompt}")
async def retrieve_prompt(prompt: str, parts: PartsDep, member: MemberDep, org: Org = None) -> Response:
    """Retrieve a prompt with its labels."""
    return json_response(await _shown(parts, await _readable(parts, prompt, member, org)))


@router.post("/{prompt}")
async def update_prompt(prompt: str, body: PromptUpdate, parts: PartsDep, admin: AdminDep, org: Org = None) -> Response:
    """Update description and teams, archive or unarchive. Its content changes by new versions."""
    row = await parts.prompts.update(prompt, org=_org(admin, org), author=admin.key, **body.changes())
    await _announce(parts, row)
    return json_response(await _shown(parts, row))


@router.delete("/{prompt}")
async def delete_prompt(prompt: str, parts: PartsDep, admin: AdminDep, org: Org = None) -> Response:
    """Delete a prompt with its versions and labels. Requests that name it are refused from now on. A new prompt of this
    name continues its numbers, as records in the ledger name them."""
    row = await parts.prompts.delete(prompt, org=_org(admin, org), author=admin.key)
    await _announce(parts, row)
    return json_response({"id": row.id, "object": "prompt", "deleted": True})


@router.post("/{prompt}/versions")
async def create_prompt_version(
    prompt: str, body: VersionCreate, parts: PartsDep, admin: AdminDep, org: Org = None
) -> Response:
    """Create a version. Content that equals the newest version's makes none: that one is returned, with status 200."""
    for label in body.labels:
        check_label(label)
    spec = await asyncio.to_thread(body.spec)
    owner = _org(admin, org)
    version, is_new = await parts.prompts.add_version(
        prompt, spec, org=owner, author=admin.key, message=body.message, labels=body.labels, base=body.base
    )
    row = await parts.prompts.retrieve(version.prompt, org=owner)
    await _announce(parts, row)
    return json_response(version_object(version, row), 201 if is_new else 200)


@router.get("/{prompt}/versions")
async def list_prompt_versions(
    prompt: str, parts: PartsDep, member: MemberDep, limit: Limit = 20, after: Cursor = None, org: Org = None
) -> Response:
    """List versions, newest first. `after` is a version's number or id."""
    row = await _readable(parts, prompt, member, org)
    number = None if after is None else _number(after, "after")
    found = await parts.prompts.versions(row.id, org=row.org, limit=limit, after=number)
    data = page([version_object(each, row) for each in found.rows], limit)
    return json_response({**data, "has_more": found.has_more})


@router.get("/{prompt}/versions/{version}")
async def retrieve_prompt_version(
    prompt: str, version: str, parts: PartsDep, member: MemberDep, org: Org = None
) -> Response:
    """Retrieve a version by its number, or the newest one as `latest`."""
    row = await _readable(parts, prompt, member, org)
    number = row.latest if version == "latest" else _number(version, "version")
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
    row = await _readable(parts, prompt, member, org)
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


@router.get("/{prompt}/labels")
async def list_prompt_labels(prompt: str, parts: PartsDep, member: MemberDep, org: Org = None) -> Response:
    """List all labels of a prompt by name."""
    row = await _readable(parts, prompt, member, org)
    labels = (await parts.prompts.labels([row.id])).get(row.id, ())
    return json_response(page([label_object(each, row) for each in labels], max(len(labels), 1)))


@router.post("/{prompt}/labels/{label}")
async def set_prompt_label(
    prompt: str, label: str, body: LabelSet, parts: PartsDep, admin: AdminDep, org: Org = None
) -> Response:
    """Point a label at a version, or at several by weight (a canary). Takes effect within a second everywhere."""
    _check_label(label)
    owner = _org(admin, org)
    made = await parts.prompts.set_label(prompt, label, body.spec(), org=owner, author=admin.key, reason=body.reason)
    row = await parts.prompts.retrieve(made.prompt, org=owner)
    await _announce(parts, row)
    return json_response(label_object(made, row))


@router.delete("/{prompt}/labels/{label}")
async def delete_prompt_label(prompt: str, label: str, parts: PartsDep, admin: AdminDep, org: Org = None) -> Response:
    """Delete a label. Requests that name it are refused from now on."""
    owner = _org(admin, org)
    row = await parts.prompts.retrieve(prompt, org=owner)
    await parts.prompts.delete_label(row.id, label, org=owner, author=admin.key)
    await _announce(parts, row)
    return json_response({"id": label, "object": "prompt.label", "prompt": row.id, "deleted": True})


@router.post("/{prompt}/labels/{label}/rollback")
async def roll_back_prompt_label(
    prompt: str, label: str, parts: PartsDep, admin: AdminDep, body: RollBack | None = None, org: Org = None
) -> Response:
    """Point a label at the version that it pointed at before: of a split, its first one."""
    body = body or RollBack()
    owner = _org(admin, org)
    made = await parts.prompts.roll_back(
        prompt, label, org=owner, author=admin.key, version=body.version, reason=body.reason
    )
    row = await parts.prompts.retrieve(made.prompt, org=owner)
    await _announce(parts, row)
    return json_response(label_object(made, row))


@router.get("/{prompt}/events")
async def list_prompt_events(
    prompt: str, parts: PartsDep, member: MemberDep, limit: Limit = 20, after: Cursor = None, org: Org = None
) -> Response:
    """List what was changed, by whom and why, newest first; including rollbacks that the platform made by itself."""
    row = await _readable(parts, prompt, member, org)
    found = await parts.prompts.events(row.id, org=row.org, limit=limit, after=after)
    data = page([event_object(each) for each in found.rows], limit)
    return json_response({**data, "has_more": found.has_more})


@router.get("/{prompt}/compare")
async def compare_prompt_versions(
    prompt: str,
    parts: PartsDep,
    admin: AdminDep,
    baseline: Annotated[int | None, Query(ge=1, le=2**31 - 1)] = None,
    candidate: Annotated[int | None, Query(ge=1, le=2**31 - 1)] = None,
    label: Annotated[str | None, Query(pattern=LABEL_PATTERN)] = None,
    start: Annotated[int | None, Query(ge=0, le=10**11)] = None,
    end: Annotated[int | None, Query(ge=0, le=10**11)] = None,
    org: Org = None,
) -> Response:
    """Compare what requests of two versions did: error rate, cost, latency and numbers given as feedback, with 95 %
    confidence intervals, a verdict on `candidate` (better, worse, unclear), and about how many requests would tell
    where it is unclear. With `label` only requests that it led to count; of a split, its first two versions since it
    was set are the default. Requires an admin key, as usage does."""
    row = await _readable(parts, prompt, admin, org)
    versions, since = [baseline, candidate], float(start or 0)
    if label is not None and None in versions:
        known = {each.label: each for each in (await parts.prompts.labels([row.id])).get(row.id, ())}
        targets = known[label].spec.targets if label in known else []
        if len(targets) > 1:
            versions = [given or each.version for given, each in zip(versions, targets, strict=False)]
            since = known[label].updated if start is None else since
    observed: list[Observed] = []
    for name, version in zip(("baseline", "candidate"), versions, strict=True):
        if version is None:
            raise BadRequestError(
                f"Missing required parameter: '{name}'.", param=name, code="missing_required_parameter"
            )
        spec = (await parts.prompts.version(row.id, version, org=row.org)).spec
        of: dict[str, Any] = {
            "org": row.org,
            "prompt": row.name,
            "version": version,
            "label": label,
            "since": since,
            "until": end,
        }
        results = await parts.prompt_results.of_version(**of)
        scores = await parts.prompt_results.scores_of_version(**of)
        valid, checked = await _valid_answers(parts, spec, results, org=row.org)
        observed.append(Observed(version, results, scores, checked=checked, valid=valid))
    found = await asyncio.to_thread(lambda: compare(*samples_of(*observed)))
    shown = {"object": "prompt.comparison", "prompt": row.id, "name": row.name, "label": label}
    return json_response({**shown, "start": int(since), "end": end, **comparison_object(found)})


async def _valid_answers(parts: Parts, spec: PromptSpec, results: Sequence[Result], *, org: str) -> tuple[int, int]:
    """How many captured answers the version's schema accepts, of how many; of its newest."""
    check = check_of(spec.response_format)
    if check is None:
        return 0, 0
    answered = [each.id for each in results if each.status == "ok" and each.cache != "hit"]
    outputs = await parts.contents.outputs(answered[:MAX_CHECKED], org=org)
    return await asyncio.to_thread(count_valid, check, outputs)


@router.post("/{prompt}/render")
async def render_prompt(
    prompt: str, body: RenderRequest, parts: PartsDep, member: MemberDep, org: Org = None
) -> Response:
    """Render a version without calling a model. Of a label's split, the first version is rendered."""
    row = await _readable(parts, prompt, member, org)
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


async def _readable(parts: Parts, ref: str, member: Principal, org: str | None) -> PromptRow:
    """Raises NotFoundError also for a prompt of other teams."""
    row = await parts.prompts.retrieve(ref, org=_org(member, org))
    if not member.is_admin and not row.is_for(member.team):
        raise no_such_prompt(ref)
    return row


async def _shown(parts: Parts, row: PromptRow) -> dict[str, Any]:
    return prompt_object(row, (await parts.prompts.labels([row.id])).get(row.id, ()))


async def _announce(parts: Parts, row: PromptRow) -> None:
    await parts.prompt_changes.announce(PromptChange(row.org, row.id))


def _org(principal: Principal, org: str | None) -> str:
    """The organisation whose prompts are meant. Raises PermissionDeniedError."""
    if org is None or org == principal.org:
        return principal.org
    if principal.is_admin and principal.org == DEFAULT_ORG:
        return org
    raise PermissionDeniedError(
        "Prompts of other organisations require an admin key of the platform.",
        param="org",
        code="platform_admin_required",
    )


def _number(text: str, param: str) -> int:
    """A version's number, or its id."""
    digits = text.rpartition("_v")[2]
    if digits.isascii() and digits.isdecimal() and len(digits) <= 9 and int(digits) >= 1:
        return int(digits)
    raise BadRequestError(
        f"Invalid value for '{param}': expected a version's number.", param=param, code="invalid_value"
    )


def _check_label(label: str) -> None:
    if not re.fullmatch(LABEL_PATTERN, label):
        raise BadRequestError(
            "Invalid label: up to 36 lower-case letters, digits, `.`, `_` and `-`, beginning with a letter.",
            param="label",
            code="invalid_value",
        )
    check_label(label)
