"""What the routes of prompts share: whose prompts a key reads and changes, and parameters.

`{prompt}` is a name or an id; a name with a `/` can only be given as the id. `org` names another organisation, for
admins of the platform.
"""

from typing import Annotated

from fastapi import Query

from quarterdeck.accounting.principal import Principal
from quarterdeck.errors import BadRequestError, PermissionDeniedError
from quarterdeck.gateway.dependencies import Parts
from quarterdeck.resources.prompts.changes import PromptChange
from quarterdeck.store.orgs import DEFAULT_ORG
from quarterdeck.store.prompt_changes import no_such_prompt
from quarterdeck.store.prompt_rows import PromptRow

Org = Annotated[str | None, Query(min_length=1, max_length=64)]
Limit = Annotated[int, Query(ge=1, le=100)]
Cursor = Annotated[str | None, Query(max_length=200)]


async def readable_prompt(parts: Parts, ref: str, member: Principal, org: str | None) -> PromptRow:
    """Raises NotFoundError also for a prompt of other teams."""
    row = await parts.prompts.retrieve(ref, org=org_of(member, org))
    if not member.is_admin and not row.is_for(member.team):
        raise no_such_prompt(ref)
    return row


def org_of(principal: Principal, org: str | None) -> str:
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


async def announce(parts: Parts, row: PromptRow) -> None:
    await parts.prompt_changes.announce(PromptChange(row.org, row.id))


def number_of(text: str, param: str) -> int:
    """A version's number, or its id."""
    digits = text.rpartition("_v")[2]
    if digits.isascii() and digits.isdecimal() and len(digits) <= 9 and int(digits) >= 1:
        return int(digits)
    raise BadRequestError(
        f"Invalid value for '{param}': expected a version's number.", param=param, code="invalid_value"
    )
