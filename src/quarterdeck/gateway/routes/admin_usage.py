"""`/admin/usage`: requests, tokens and money, summed up from the ledger; exact, because it is the ledger's own rows."""

import time
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Response

from quarterdeck.errors import BadRequestError
from quarterdeck.gateway.dependencies import AdminDep, PartsDep
from quarterdeck.gateway.http.responses import json_response
from quarterdeck.store.ledger import LedgerFilter, Usage

router = APIRouter(prefix="/admin/usage")

Group = Literal["key", "team", "model", "route", "operation", "status", "user"]
BUCKETS = {"hour": 3600, "day": 86_400}
MOST_BUCKETS = 1000
MOST_ROWS = 10_000

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
) -> Response:
    """Sums over the admin's org from `start` to `end` (Unix seconds; this month in UTC where not given, `end` is not
    included), by up to three of key, team, model, route, operation, status, user (`group_by`, repeated) and by hour or
    day (`bucket`); of one `key`, `team` or `model` where named. Money is exact dollars, as text."""
    since = _start_of_the_month(time.time()) if start is None else start
    until = int(time.time()) + 1 if end is None else end
    _check(since, until, bucket)
    groups = tuple(dict.fromkeys(group_by or ()))
    where = LedgerFilter(org=admin.org, key=key, team=team, model=model, since=since, until=until)
    found = await parts.ledger.sum(where, by=groups, bucket_seconds=BUCKETS[bucket] if bucket else None)
    if len(found) > MOST_ROWS:
        raise BadRequestError(
            f"That is {len(found)} rows, {MOST_ROWS} at most: ask for a shorter time or fewer groups.",
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
        "cost": _exact(usage.cost),
        "saved": _exact(usage.saved),
    }


def _check(since: int, until: int, bucket: str | None) -> None:
    if until <= since:
        raise BadRequestError("`end` must be later than `start`.", param="end", code="invalid_value")
    if bucket is not None and (until - since) // BUCKETS[bucket] > MOST_BUCKETS:
        raise BadRequestError(
            f"That is more than {MOST_BUCKETS} {bucket}s: ask for a shorter time.", param="bucket", code="invalid_value"
        )


def _exact(money: Decimal) -> str:
    """Every digit, and no zeros that say nothing: both databases tell a sum alike."""
    text = format(money, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def _start_of_the_month(now: float) -> int:
    today = datetime.fromtimestamp(now, UTC)
    return int(datetime(today.year, today.month, 1, tzinfo=UTC).timestamp())
