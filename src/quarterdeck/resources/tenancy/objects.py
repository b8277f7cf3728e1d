"""Keys, teams and organisations as the admin API tells them, and who may write them. Pure.

What is told is what holds: where quarterdeck.yaml names an object, its limits, budget, priority and tags are the
file's, `managed_by` says so, and to write them here is a 409.
"""

from collections.abc import Collection, Sequence
from typing import Any

from pydantic import BaseModel

from quarterdeck.errors import ConflictError
from quarterdeck.resources.tenancy.principals import key_terms, org_terms, team_terms
from quarterdeck.settings.config import Config
from quarterdeck.store.keys import KeyRow
from quarterdeck.store.orgs import DEFAULT_ORG, OrgRow
from quarterdeck.store.teams import TeamRow
from quarterdeck.store.terms import NO_TERMS, to_column

OF_THE_FILE = frozenset({"limits", "budget", "priority", "tags"})
"""What the file says of an object that it names; the rest of a key (models, expiry, team) is the database's."""


def key_object(row: KeyRow, config: Config) -> dict[str, Any]:
    """All about a key but the key."""
    terms, tags = key_terms(row, config)
    return {
        "id": row.id,
        "object": "api_key",
        "name": row.name,
        "org": row.org,
        "team": row.team,
        "hint": row.hint,
        "limits": to_column(terms.limits),
        "budget": to_column(terms.budget),
        "priority": terms.priority,
        "tags": list(tags),
        "models": None if row.models is None else sorted(row.models),
        "admin": row.is_admin,
        "managed_by": _manager(owns_key(config, row.org, row.name)),
        "created": int(row.created),
        "expires": None if row.expires is None else int(row.expires),
        "revoked": None if row.revoked is None else int(row.revoked),
    }


def team_object(row: TeamRow, config: Config) -> dict[str, Any]:
    terms = team_terms(row.org, row.id, row.terms, config)
    return {
        "id": row.id,
        "object": "team",
        "org": row.org,
        "limits": to_column(terms.limits),
        "budget": to_column(terms.budget),
        "priority": terms.priority,
        "managed_by": _manager(owns_team(config, row.org, row.id)),
        "created": int(row.created) or None,
    }


def org_object(row: OrgRow, config: Config) -> dict[str, Any]:
    terms = org_terms(row.id, row.terms, config)
    return {
        "id": row.id,
        "object": "organization",
        "limits": to_column(terms.limits),
        "budget": to_column(terms.budget),
        "managed_by": _manager(owns_org(config, row.id)),
        "created": int(row.created),
    }


def page(found: Sequence[dict[str, Any]], limit: int) -> dict[str, Any]:
    """OpenAI's list of at most `limit` objects, where one more was asked for to know whether there is one."""
    data = found[:limit]
    return {
        "object": "list",
        "data": data,
        "first_id": data[0]["id"] if data else None,
        "last_id": data[-1]["id"] if data else None,
        "has_more": len(found) > limit,
    }


def owns_key(config: Config, org: str, name: str) -> bool:
    return org == DEFAULT_ORG and name in config.keys


def owns_team(config: Config, org: str, team: str) -> bool:
    return org == DEFAULT_ORG and team in config.teams


def owns_org(config: Config, org: str) -> bool:
    return org == DEFAULT_ORG and config.org is not None


def named_teams(config: Config, org: str, *, after: str | None) -> list[TeamRow]:
    """The teams of the file, whether a key of them was ever made or not."""
    if org != DEFAULT_ORG:
        return []
    return [TeamRow(org, name, 0.0, NO_TERMS) for name in sorted(config.teams) if after is None or name > after]


def merged(stored_teams: Sequence[TeamRow], named: Sequence[TeamRow]) -> list[TeamRow]:
    """Both by name, each once; what the database knows of a team (when it was made) goes before."""
    return sorted({row.id: row for row in (*named, *stored_teams)}.values(), key=lambda row: row.id)


def refuse_key_fields(config: Config, org: str, name: str, fields: Collection[str]) -> None:
    """Raises ConflictError where the file owns the key called `name` and one of the fields is the file's to say."""
    mine = sorted(OF_THE_FILE & set(fields))
    if mine and owns_key(config, org, name):
        raise managed(f"keys.{name}", param=mine[0])


def managed(where: str, *, param: str | None = None) -> ConflictError:
    return ConflictError(f"quarterdeck.yaml says it: change `{where}` there.", param=param, code="managed_by_config")


def _manager(is_config: bool) -> str:
    return "config" if is_config else "api"


def given(body: BaseModel) -> dict[str, Any]:
    """The fields that a body names, null or not."""
    return {name: getattr(body, name) for name in body.model_fields_set}
