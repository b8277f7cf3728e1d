"""`/v1/prompts/{prompt}/compare`: what requests of two versions did."""

import asyncio
from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response

from quarterdeck.errors import BadRequestError
from quarterdeck.gateway.dependencies import AdminDep, Parts, PartsDep
from quarterdeck.gateway.http.responses import json_response
from quarterdeck.gateway.routes.prompt_access import Org, readable_prompt
from quarterdeck.resources.prompts.answer_schemas import check_of, count_valid
from quarterdeck.resources.prompts.comparison import compare, comparison_object
from quarterdeck.resources.prompts.sampling import Observed, samples_of
from quarterdeck.settings.prompts import LABEL_PATTERN, PromptSpec
from quarterdeck.store.prompt_results import Result

router = APIRouter(prefix="/v1/prompts")

Version = Annotated[int | None, Query(ge=1, le=2**31 - 1)]

MAX_CHECKED = 1000
"""Captured answers of a version that a comparison checks against its schema: the newest."""


@router.get("/{prompt}/compare")
async def compare_prompt_versions(
    prompt: str,
    parts: PartsDep,
    admin: AdminDep,
    baseline: Version = None,
    candidate: Version = None,
    label: Annotated[str | None, Query(pattern=LABEL_PATTERN)] = None,
    start: Annotated[int | None, Query(ge=0, le=10**11)] = None,
    end: Annotated[int | None, Query(ge=0, le=10**11)] = None,
    org: Org = None,
) -> Response:
    """Compare what requests of two versions did: error rate, cost, latency and numbers given as feedback, with 95 %
    confidence intervals, a verdict on `candidate` (better, worse, unclear), and about how many requests would tell
    where it is unclear. With `label` only requests that it led to count; of a split, its first two versions since it
    was set are the default. Requires an admin key, as usage does."""
    row = await readable_prompt(parts, prompt, admin, org)
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
