"""`/admin/cache`: what an org's cache holds, and how it is made to forget."""

from typing import Annotated

from fastapi import APIRouter, Query, Response

from quarterdeck.gateway.dependencies import AdminDep, PartsDep
from quarterdeck.gateway.http.responses import json_response

router = APIRouter(prefix="/admin/cache")

MIB = 1024 * 1024


@router.get("")
async def retrieve_cache(parts: PartsDep, admin: AdminDep) -> Response:
    """Answers and bytes of the admin's org; those that have just expired may still be counted."""
    held = await parts.kept.held(admin.org)
    config = parts.config.cache
    return json_response(
        {
            "object": "cache",
            "entries": held.entries,
            "bytes": held.bytes,
            "max_bytes": config.max_mb * MIB,
            "is_on": config.default.exact or any(policy.exact for policy in config.policies.values()),
        }
    )


@router.delete("")
async def delete_cache(
    parts: PartsDep,
    admin: AdminDep,
    model: Annotated[str | None, Query(min_length=1, max_length=256)] = None,
    key: Annotated[str | None, Query(pattern=r"^[0-9a-f]{40}$")] = None,
) -> Response:
    """Forget answers of the admin's org: all, those of `model`, or the one of `key` (an answer's `x-cache-key`).

    An answer that is under way meanwhile may still be kept.
    """
    return json_response({"object": "cache", "deleted": await parts.kept.purge(admin.org, model=model, key=key)})
