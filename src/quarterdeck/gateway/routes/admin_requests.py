"""`/admin/requests`: the log of an organisation's requests. `/admin/contents`: deletion of inputs and outputs.

An admin sees its own organisation's requests only, admins of the platform too: another organisation's prompts are not
theirs. Keys that are not admins have no access: one is held by an application, and would show a team's prompts.
"""

import asyncio
from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Response

from quarterdeck.content import Content
from quarterdeck.errors import BadRequestError
from quarterdeck.gateway.dependencies import AdminDep, PartsDep
from quarterdeck.gateway.http.responses import json_response
from quarterdeck.gateway.routes.known_filters import refuse_unknown_filters
from quarterdeck.resources.requests.objects import content_fields, request_detail, request_object
from quarterdeck.resources.scores.requests import score_object
from quarterdeck.store.contents import DeleteBy
from quarterdeck.store.request_log import EQUAL, RequestFilter
from quarterdeck.store.scores import ScoreFilter

router = APIRouter(prefix="/admin")

Text = Annotated[str | None, Query(max_length=512)]
Unix = Annotated[float | None, Query(ge=0, le=10**11)]
Seconds = Annotated[float | None, Query(ge=0, le=10**9)]
Dollars = Annotated[Decimal | None, Query(ge=0, max_digits=30, decimal_places=18)]


@router.get("/requests")
async def list_requests(
    parts: PartsDep,
    admin: AdminDep,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    after: Text = None,
    start: Unix = None,
    end: Unix = None,
    key: Text = None,
    team: Text = None,
    model: Text = None,
    route: Text = None,
    prompt: Text = None,
    prompt_version: Text = None,
    operation: Text = None,
    status: Literal["ok", "error", "cancelled", "lost"] | None = None,
    failed: bool | None = None,
    error_code: Text = None,
    http_status: Annotated[int | None, Query(ge=0, le=999)] = None,
    finish_reason: Text = None,
    cache: Literal["off", "hit", "miss", "bypass"] | None = None,
    endpoint: Text = None,
    user: Text = None,
    session: Text = None,
    tag: Text = None,
    text: Annotated[str | None, Query(min_length=2, max_length=512)] = None,
    min_cost: Dollars = None,
    max_cost: Dollars = None,
    min_latency: Seconds = None,
    max_latency: Seconds = None,
    content: bool = False,
) -> Response:
    """List the organisation's requests, newest first, that match every parameter. `start` and `end` are Unix seconds,
    costs dollars, latencies seconds; `failed`: any status but `ok`; `text`: in the stored input or output; `content`:
    with `input` and `output`. The next page begins after `last_id`; with `text` a page may be short although there is
    more."""
    values: dict[str, str | int | None] = {
        "key": key,
        "team": team,
        "model": model,
        "route": route,
        "prompt": prompt,
        "prompt_version": prompt_version,
        "operation": operation,
        "status": status,
        "error_code": error_code,
        "http_status": http_status,
        "finish_reason": finish_reason,
        "cache": cache,
        "endpoint": endpoint,
        "user": user,
        "session": session,
    }
    where = RequestFilter(
        org=admin.org,
        equal={name: value for name in EQUAL if (value := values[name]) is not None},
        since=start,
        until=end,
        min_cost=min_cost,
        max_cost=max_cost,
        min_latency=min_latency,
        max_latency=max_latency,
        is_error=failed,
        tag=tag,
        text=text,
    )
    found = await parts.requests.page(where, limit=limit, after=after)
    if not found.records and not found.has_more and after is None:
        await refuse_unknown_filters(parts, admin.org, key=key, team=team, model=model)
    data = [request_object(record) for record in found.records]
    if content:
        stored = await parts.contents.retrieve([record.id for record in found.records], org=admin.org)
        data = await asyncio.to_thread(_with_contents, data, stored)  # a hundred have megabytes
    first = data[0]["id"] if data else None
    answer = {"object": "list", "data": data, "first_id": first, "last_id": found.last, "has_more": found.has_more}
    return await asyncio.to_thread(json_response, answer) if content else json_response(answer)


def _with_contents(data: list[dict[str, Any]], stored: Mapping[str, Content]) -> list[dict[str, Any]]:
    return [{**each, **content_fields(stored.get(each["id"]))} for each in data]


@router.get("/requests/{request_id}")
async def retrieve_request(request_id: str, parts: PartsDep, admin: AdminDep) -> Response:
    """Retrieve a request with its attempts, parameters and scores, and its input and output where they are stored."""
    record = await parts.requests.retrieve(request_id, org=admin.org)
    stored = await parts.contents.retrieve([request_id], org=admin.org)
    scores = await parts.scores.list(ScoreFilter(org=admin.org, request=request_id), limit=100)
    detail = request_detail(record, stored.get(request_id))
    return json_response({**detail, "scores": [score_object(score) for score in scores]})


@router.delete("/contents")
async def delete_contents(
    parts: PartsDep, admin: AdminDep, request: Text = None, user: Text = None, session: Text = None
) -> Response:
    """Delete the inputs and outputs of a `request`, a `user` or a `session` up to now. Records and sums stay. What is
    under way at this moment is not stored either."""
    asked: dict[DeleteBy, str | None] = {"request": request, "user": user, "session": session}
    given = [(by, value) for by, value in asked.items() if value]
    if len(given) != 1:
        raise BadRequestError(
            "Give exactly one of `request`, `user` and `session`.", param="request", code="invalid_value"
        )
    ((by, value),) = given
    count = await parts.content_deletion.delete(by, value, org=admin.org, key=admin.key)
    body: dict[str, Any] = {"object": "content.deletion", "by": by, "value": value, "deleted": count}
    return json_response(body)
