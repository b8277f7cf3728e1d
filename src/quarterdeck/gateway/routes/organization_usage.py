"""`/v1/organization/usage/…` and `/v1/organization/costs`: OpenAI's usage API over the ledger, for admins.

Lists may be sent as `name=…` or, as OpenAI's clients do, as `name[]=…`, repeated.
"""

import time
from collections.abc import Mapping
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Response

from quarterdeck.errors import BadRequestError, NotFoundError
from quarterdeck.gateway.dependencies import AdminDep, Parts, PartsDep
from quarterdeck.gateway.http.responses import json_response
from quarterdeck.resources.usage.objects import (
    COST_GROUPS,
    GROUPS,
    OPERATIONS,
    OWN_GROUPS,
    SINGLE_VALUED,
    cost_page,
    usage_page,
)
from quarterdeck.resources.usage.pages import COST_LIMITS, LIMITS, WIDTHS, Page, page_of
from quarterdeck.store.ledger import LedgerFilter
from quarterdeck.store.usage import GroupBy, Usage

router = APIRouter(prefix="/v1/organization")

MAX_VALUES = 100
Values = Annotated[list[Annotated[str, Query(max_length=256)]] | None, Query(max_length=MAX_VALUES)]
Unix = Annotated[int, Query(ge=0, le=10**11)]
OptionalUnix = Annotated[int | None, Query(ge=0, le=10**11)]
Cursor = Annotated[str | None, Query(max_length=64)]


@router.get("/usage/{kind}")
async def retrieve_usage(
    kind: str,
    parts: PartsDep,
    admin: AdminDep,
    start_time: Unix,
    end_time: OptionalUnix = None,
    bucket_width: Literal["1m", "1h", "1d"] = "1d",
    limit: int | None = None,
    page: Cursor = None,
    group_by: Values = None,
    group_by_list: Annotated[Values, Query(alias="group_by[]")] = None,
    models: Values = None,
    models_list: Annotated[Values, Query(alias="models[]")] = None,
    project_ids: Values = None,
    project_ids_list: Annotated[Values, Query(alias="project_ids[]")] = None,
    user_ids: Values = None,
    user_ids_list: Annotated[Values, Query(alias="user_ids[]")] = None,
    api_key_ids: Values = None,
    api_key_ids_list: Annotated[Values, Query(alias="api_key_ids[]")] = None,
    batch: bool | None = None,
    sizes: Values = None,
    sizes_list: Annotated[Values, Query(alias="sizes[]")] = None,
    sources: Values = None,
    sources_list: Annotated[Values, Query(alias="sources[]")] = None,
    vector_store_ids: Values = None,
    vector_store_ids_list: Annotated[Values, Query(alias="vector_store_ids[]")] = None,
    context_levels: Values = None,
    context_levels_list: Annotated[Values, Query(alias="context_levels[]")] = None,
) -> Response:
    """Usage of the admin's organisation as OpenAI's pages of buckets: `completions` (chats and completions),
    `embeddings`, `moderations`, `images`, `audio_speeches`, `audio_transcriptions` (and translations); other kinds are
    empty. `project_id` is the team, `user_id` the request's `safety_identifier` or
    `user`."""
    if kind not in OPERATIONS:
        raise NotFoundError(f"No such kind of usage: '{kind[:64]}'.", code="unknown_usage")
    wanted = page_of(start_time, _end(end_time), WIDTHS[bucket_width], limit, page, LIMITS[bucket_width])
    own = OWN_GROUPS.get(kind, frozenset())
    for name, values in (
        ("size", sizes or sizes_list),
        ("source", sources or sources_list),
        ("vector_store_id", vector_store_ids or vector_store_ids_list),
        ("context_level", context_levels or context_levels_list),
    ):
        if values and name not in own:
            raise BadRequestError(f"Unknown parameter: '{name}s'.", param=f"{name}s", code="unknown_parameter")
    names, columns = _groups(_both(group_by, group_by_list), GROUPS, own)
    found = []
    if OPERATIONS[kind] and not batch:  # the requests of batches are summed with all others
        where = LedgerFilter(
            org=admin.org,
            operation=OPERATIONS[kind],
            model=_both(models, models_list) or None,
            team=_both(project_ids, project_ids_list) or None,
            user=_both(user_ids, user_ids_list) or None,
            key=_both(api_key_ids, api_key_ids_list) or None,
            since=wanted.since,
            until=wanted.until,
        )
        found = await _sum(parts, where, columns, wanted)
    return json_response(usage_page(kind, wanted, found, names))


@router.get("/costs")
async def retrieve_costs(
    parts: PartsDep,
    admin: AdminDep,
    start_time: Unix,
    end_time: OptionalUnix = None,
    bucket_width: Literal["1d"] = "1d",
    limit: int | None = None,
    page: Cursor = None,
    group_by: Values = None,
    group_by_list: Annotated[Values, Query(alias="group_by[]")] = None,
    project_ids: Values = None,
    project_ids_list: Annotated[Values, Query(alias="project_ids[]")] = None,
    user_ids: Values = None,
    user_ids_list: Annotated[Values, Query(alias="user_ids[]")] = None,
    api_key_ids: Values = None,
    api_key_ids_list: Annotated[Values, Query(alias="api_key_ids[]")] = None,
    line_items: Values = None,
    line_items_list: Annotated[Values, Query(alias="line_items[]")] = None,
) -> Response:
    """Cost of the admin's organisation by day, in dollars with every digit; `line_item` is the model."""
    wanted = page_of(start_time, _end(end_time), WIDTHS[bucket_width], limit, page, COST_LIMITS)
    names, columns = _groups(_both(group_by, group_by_list), COST_GROUPS)
    where = LedgerFilter(
        org=admin.org,
        model=(*(line_items or ()), *(line_items_list or ())) or None,
        team=_both(project_ids, project_ids_list) or None,
        user=_both(user_ids, user_ids_list) or None,
        key=_both(api_key_ids, api_key_ids_list) or None,
        since=wanted.since,
        until=wanted.until,
    )
    found = await _sum(parts, where, columns, wanted)
    return json_response(cost_page(wanted, found, names))


def _both(plain: list[str] | None, bracketed: list[str] | None) -> tuple[str, ...]:
    """Values under both spellings; one value may hold several, separated by commas."""
    return tuple(dict.fromkeys(each for value in [*(plain or ()), *(bracketed or ())] for each in value.split(",")))


def _groups(
    given: tuple[str, ...], known: Mapping[str, GroupBy], own: frozenset[str] = frozenset()
) -> tuple[list[str], list[GroupBy]]:
    """The names that have several values here, and their columns. `own`: further names that OpenAI has."""
    for name in given:
        if name not in known and name not in SINGLE_VALUED | own:
            supported = ", ".join(sorted([*known, *SINGLE_VALUED, *own]))
            raise BadRequestError(
                f"Invalid value: '{name[:64]}'. Supported values are: {supported}.",
                param="group_by",
                code="invalid_value",
            )
    names = [name for name in given if name in known]
    return names, [known[name] for name in names]


def _end(end_time: int | None) -> int:
    return int(time.time()) + 1 if end_time is None else end_time


async def _sum(parts: Parts, where: LedgerFilter, columns: list[GroupBy], page: Page) -> list[Usage]:
    """The rows of a page. Raises BadRequestError for too many."""
    found = await parts.ledger.sum(where, by=columns, bucket_seconds=page.width)
    if len(found) > parts.max_usage_rows:
        raise BadRequestError(
            f"The result has {len(found)} rows, more than {parts.max_usage_rows}. Use a shorter time range or fewer"
            " groups.",
            param="group_by",
            code="too_many_rows",
        )
    return found
