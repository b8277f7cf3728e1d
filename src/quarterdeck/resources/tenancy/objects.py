"""Keys, teams and organisations as the admin API shows them, and what quarterdeck.yaml manages. Pure.

An object shows the terms in force: where quarterdeck.yaml names it, limits, budget, priority and tags are the file's,
`managed_by` is `config`, and changing them by API is a 409.
"""

from collections.abc import Collection, Sequence
from typing import Any

from quarterdeck.errors import ConflictError
from quarterdeck.resources.tenancy.principals import key_terms, org_content_days, org_terms, team_terms
from quarterdeck.settings.config import Config
from quarterdeck.store.keys import KeyRow
from quarterdeck.store.orgs import DEFAULT_ORG, OrgRow
from quarterdeck.store.teams import TeamRow
from quarterdeck.store.terms import NO_TERMS, to_column

CONFIG_FIELDS = frozenset({"limits", "budget", "priority", "tags", "content"})
"""What the file manages of an object that it names; the rest of a key (models, expiry, team) is the database's."""


def key_object(row: KeyRow, config: Config) -> dict[str, Any]:
    """Everything about a key except its secret."""
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
        "content": terms.content,
        "models": None if row.models is None else sorted(row.models),
        "admin": row.is_admin,
        "managed_by": _manager(is_key_in_config(config, row.org, row.name)),
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
        "content": terms.content,
        "managed_by": _manager(is_team_in_config(config, row.org, row.id)),
        "created": int(row.created) or None,
    }


def org_object(row: OrgRow, config: Config) -> dict[str, Any]:
    terms = org_terms(row.id, row.terms, config)
    return {
        "id": row.id,
        "object": "organization",
        "limits": to_column(terms.limits),
        "budget": to_column(terms.budget),
        "content": terms.content,
        "content_days": org_content_days(row.id, row.content_days, config),
        "managed_by": _manager(is_org_in_config(config, row.id)),
        "created": int(row.created),
    }


def page(found: Sequence[dict[str, Any]], limit: int, *, has_more: bool | None = None) -> dict[str, Any]:
    """OpenAI's list of at most `limit` objects. `found` holds one more if there are more, or `has_more` says so."""
    data = found[:limit]
    return {
        "object": "list",
        "data": data,
        "first_id": data[0]["id"] if data else None,
        "last_id": data[-1]["id"] if data else None,
        "has_more": len(found) > limit if has_more is None else has_more,
    }


def is_key_in_config(config: Config, org: str, name: str) -> bool:
    return org == DEFAULT_ORG and name in config.keys


def is_team_in_config(config: Config, org: str, team: str) -> bool:
    return org == DEFAULT_ORG and team in config.teams


def is_org_in_config(config: Config, org: str) -> bool:
    return org == DEFAULT_ORG and config.org is not None


def teams_in_config(config: Config, org: str, *, after: str | None) -> list[TeamRow]:
    """The file's teams by name, also those without a key."""
    if org != DEFAULT_ORG:
        return []
    return [TeamRow(org, name, 0.0, NO_TERMS) for name in sorted(config.teams) if after is None or name > after]


def merge_teams(stored_teams: Sequence[TeamRow], named: Sequence[TeamRow]) -> list[TeamRow]:
    """Both by name, each once; the database's row, which knows when the team was created, goes first."""
    return sorted({row.id: row for row in (*named, *stored_teams)}.values(), key=lambda row: row.id)


def refuse_key_fields(config: Config, org: str, name: str, fields: Collection[str]) -> None:
    """Raises ConflictError if the file manages the key called `name` and one of the fields."""
    managed_fields = sorted(CONFIG_FIELDS & set(fields))
    if managed_fields and is_key_in_config(config, org, name):
        raise managed(f"keys.{name}", param=managed_fields[0])


def managed(where: str, *, param: str | None = None) -> ConflictError:
    return ConflictError(f"`{where}` is managed by quarterdeck.yaml.", param=param, code="managed_by_config")


def _manager(is_in_config: bool) -> str:
    return "config" if is_in_config else "api"
