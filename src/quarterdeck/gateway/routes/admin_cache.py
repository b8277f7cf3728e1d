"""`/admin/cache`: the size of an organisation's response cache, and its purge."""

from typing import Annotated

from fastapi import APIRouter, Query, Response

from quarterdeck.gateway.dependencies import AdminDep, PartsDep
from quarterdeck.gateway.http.responses import json_response

router = APIRouter(prefix="/admin/cache")

MIB = 1024 * 1024


@router.get("")
async def retrieve_cache(parts: PartsDep, admin: AdminDep) -> Response:
    """Entries and bytes cached for the admin's organisation. Entries that have just expired may still be counted."""
    size = await parts.cache.size(admin.org)
    config = parts.config.cache
    return json_response(
        {
            "object": "cache",
            "entries": size.entries,
            "bytes": size.bytes,
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
    """Purge the cache of the admin's organisation: all of it, the entries of `model`, or the entry of `key` (a
    response's `x-cache-key`).

    A response that is being generated meanwhile may still be cached.
    """
    return json_response({"object": "cache", "deleted": await parts.cache.purge(admin.org, model=model, key=key)})
