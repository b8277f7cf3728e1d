"""`/admin/prompt_links`: prompts that are synchronised with Langfuse, their conflicts, and what is decided on them.

The worker synchronises; these routes read what it recorded. `org` names another organisation, for admins of the
platform.
"""

from typing import Annotated

from fastapi import APIRouter, Query, Response

from quarterdeck.accounting.principal import Principal
from quarterdeck.errors import PermissionDeniedError
from quarterdeck.gateway.dependencies import AdminDep, PartsDep
from quarterdeck.gateway.http.responses import json_response
from quarterdeck.resources.prompts.links import LinkDecision, link_object
from quarterdeck.resources.tenancy.objects import page
from quarterdeck.store.orgs import DEFAULT_ORG

router = APIRouter(prefix="/admin/prompt_links")

Org = Annotated[str | None, Query(min_length=1, max_length=64)]


@router.get("")
async def list_prompt_links(
    parts: PartsDep,
    admin: AdminDep,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    after: Annotated[str | None, Query(max_length=200)] = None,
    name: Annotated[str | None, Query(max_length=255)] = None,
    org: Org = None,
) -> Response:
    """List synchronised prompts by name: their state (synchronised, partial, conflict, pending, detached), conflicts,
    and notes on what can't be synchronised."""
    rows, has_more = await parts.prompt_links.page(org=_org(admin, org), name=name, after=after, limit=limit)
    return json_response({**page([link_object(row) for row in rows], limit), "has_more": has_more})


@router.get("/{link}")
async def retrieve_prompt_link(link: str, parts: PartsDep, admin: AdminDep, org: Org = None) -> Response:
    """Retrieve a synchronised prompt, with both numbers of its versions."""
    row = await parts.prompt_links.retrieve(link, org=_org(admin, org))
    return json_response(link_object(row, await parts.prompt_links.versions(row)))


@router.post("/{link}")
async def decide_prompt_link(
    link: str, body: LinkDecision, parts: PartsDep, admin: AdminDep, org: Org = None
) -> Response:
    """Keep one side of a prompt's conflicts. The worker carries it out within seconds."""
    row = await parts.prompt_links.decide(link, body.keep, org=_org(admin, org))
    return json_response(link_object(row, await parts.prompt_links.versions(row)))


def _org(admin: Principal, org: str | None) -> str:
    """Raises PermissionDeniedError."""
    if org is None or org == admin.org:
        return admin.org
    if admin.org == DEFAULT_ORG:
        return org
    raise PermissionDeniedError(
        "Prompts of other organisations require an admin key of the platform.",
        param="org",
        code="platform_admin_required",
    )
