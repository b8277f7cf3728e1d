"""`/admin/usage`: requests, tokens and money, summed over the ledger's rows."""

import time
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Response

from quarterdeck.errors import BadRequestError
from quarterdeck.gateway.dependencies import AdminDep, OrgParameter, PartsDep, require_platform_admin
from quarterdeck.gateway.http.responses import json_response
from quarterdeck.gateway.routes.known_filters import refuse_unknown_filters
from quarterdeck.money import plain_text
from quarterdeck.store.ledger import LedgerFilter
from quarterdeck.store.usage import Usage

router = APIRouter(prefix="/admin/usage")

Group = Literal["key", "team", "model", "route", "operation", "status", "user"]
BUCKETS = {"hour": 3600, "day": 86_400}
MAX_BUCKETS = 1000

Text = Annotated[str | None, Query(max_length=256)]
Unix = Annotated[int | None, Query(ge=0, le=10**11)]


@router.get("")
async def retrieve_usage(
    parts: PartsDep,
    admin: AdminDep,
    group_by: Annotated[list[Group] | None, Query(max_length=3)] = None,
    bucket: Literal["hour", "day"] | None = None,
    start: Unix = None,
    end: Unix = None,
    key: Text = None,
    team: Text = None,
    model: Text = None,
    org: OrgParameter = None,
) -> Response:
    """Usage of the admin's organisation (or of `org`, also a deleted one) from `start` to before `end` (Unix seconds;
    default: this month, UTC), grouped by up to three of key, team, model, route, operation, status and user
    (`group_by`, repeated) and by hour or day (`bucket`), optionally of one `key`, `team` or `model`. Money is in
    dollars, as exact text."""
    since = _start_of_the_month(time.time()) if start is None else start
    until = int(time.time()) + 1 if end is None else end
    _check(since, until, bucket)
    if org is not None and org != admin.org:
        require_platform_admin(admin, param="org")
        await parts.orgs.retrieve(org, with_deleted=True)
    groups = tuple(dict.fromkeys(group_by or ()))
    where = LedgerFilter(org=org or admin.org, key=key, team=team, model=model, since=since, until=until)
    found = await parts.ledger.sum(where, by=groups, bucket_seconds=BUCKETS[bucket] if bucket else None)
    if not found:
        await refuse_unknown_filters(parts, where.org, key=key, team=team, model=model)
    if len(found) > parts.max_usage_rows:
        raise BadRequestError(
            f"The result has {len(found)} rows, more than {parts.max_usage_rows}. Use a shorter time range or fewer"
            " groups.",
            param="group_by",
            code="too_many_rows",
        )
    data = [_usage(usage, groups, bucket) for usage in found]
    return json_response(
        {"object": "list", "data": data, "start": since, "end": until, "currency": "usd", "has_more": False}
    )


def _usage(usage: Usage, groups: tuple[Group, ...], bucket: Literal["hour", "day"] | None) -> dict[str, Any]:
    times = {} if bucket is None else {"start": usage.bucket, "end": (usage.bucket or 0) + BUCKETS[bucket]}
    return {
        "object": "usage",
        **dict(zip(groups, usage.group, strict=True)),
        **times,
        "requests": usage.requests,
        "input_tokens": usage.input_tokens,
        "cached_tokens": usage.cached_tokens,
        "output_tokens": usage.output_tokens,
        "reasoning_tokens": usage.reasoning_tokens,
        "audio_seconds": usage.audio_ms / 1000,
        "characters": usage.characters,
        "images": usage.images,
        "cost": plain_text(usage.cost),
        "saved": plain_text(usage.saved),
    }


def _check(since: int, until: int, bucket: str | None) -> None:
    if until <= since:
        raise BadRequestError("`end` must be later than `start`.", param="end", code="invalid_value")
    if bucket is not None and (until - since) // BUCKETS[bucket] > MAX_BUCKETS:
        raise BadRequestError(
            f"The range has more than {MAX_BUCKETS} {bucket}s. Use a shorter time range.",
            param="bucket",
            code="invalid_value",
        )


def _start_of_the_month(now: float) -> int:
    today = datetime.fromtimestamp(now, UTC)
    return int(datetime(today.year, today.month, 1, tzinfo=UTC).timestamp())
