"""Request bodies that create and change keys, teams and organisations.

In an update, a field that is left out keeps its value and null removes it.
"""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

from quarterdeck.content import Level
from quarterdeck.settings.limits import Budget, Limits
from quarterdeck.settings.tenancy import Priority, Tags, TeamName
from quarterdeck.store.orgs import DEFAULT_TEAM

Name = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[^\x00-\x1f\x7f]+$")]
ModelName = Annotated[str, Field(min_length=1, max_length=256, pattern=r"^[^\x00-\x1f\x7f]+$")]
Models = Annotated[list[ModelName], Field(max_length=1000)]
Days = Annotated[float, Field(gt=0, le=36_500)]


class KeyTerms(BaseModel):
    """What creating and updating a key have in common."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    limits: Limits | None = None
    """The key's own limits, replaced as a whole. null: the default limits of quarterdeck.yaml."""
    budget: Budget | None = None
    """Money the key may spend. null: bounded by its team's and organisation's budgets only."""
    models: Models | None = None
    """Model names the key may use. null: all."""
    priority: Priority | None = None
    """0 to 9; when endpoints are full, the higher goes first. null: the team's."""
    content: Level | None = None
    """What is kept of inputs and outputs: `off`, `hashed` or `full`. The strictest of key, team, organisation, route
    and model applies. null: the key does not say."""
    expires_in_days: Days | None = None
    """Days from now after which the key is refused. null: never."""


class KeyRequest(KeyTerms):
    """The body of `POST /admin/keys`."""

    name: Name
    """Shown in reports, and matched with `keys:` of quarterdeck.yaml. Need not be unique."""
    org: TeamName | None = None
    """The organisation. Default: the admin's own; only admins of the platform may name another."""
    team: TeamName = DEFAULT_TEAM
    """The team, created if it does not exist."""
    tags: Tags = ()
    """Added to each record and trace of the key, for reports."""
    admin: bool = False
    """Whether the key may use this API."""


class KeyUpdate(KeyTerms):
    """The body of `POST /admin/keys/{key_id}`: a field that is left out keeps its value, null removes it."""

    name: Name | None = None
    """A new name."""
    team: TeamName | None = None
    """A new team; usage until now stays with the old one."""
    tags: Tags | None = None
    """All tags, replaced as a whole. null: none."""

    @field_validator("name", "team")
    @classmethod
    def _is_not_null(cls, value: str | None) -> str:
        if value is None:  # a field that is left out is not validated
            raise ValueError("can't be null")
        return value


class OrgUpdate(BaseModel):
    """The body of `POST /admin/organizations/{org}`: a field that is left out keeps its value, null removes it."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    limits: Limits | None = None
    """Shared by all keys; `max_tokens` applies to each request."""
    budget: Budget | None = None
    """Money that all keys may spend together."""
    content: Level | None = None
    """What is kept of inputs and outputs: `off`, `hashed` or `full`. No key can turn on what this turns off. null: it
    does not say."""
    content_days: Days | None = None
    """Days after which contents are deleted. null: the platform's setting."""


class OrgRequest(OrgUpdate):
    """The body of `POST /admin/organizations`."""

    id: TeamName
    """The organisation's name."""


class TeamUpdate(BaseModel):
    """The body of `POST /admin/teams/{team}`: a field that is left out keeps its value, null removes it."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    limits: Limits | None = None
    """Shared by all keys; `max_tokens` applies to each request."""
    budget: Budget | None = None
    """Money that all keys may spend together."""
    content: Level | None = None
    """What is kept of inputs and outputs: `off`, `hashed` or `full`. null: the team does not say."""
    priority: Priority | None = None
    """0 to 9, for keys that have no priority of their own."""


class TeamRequest(TeamUpdate):
    """The body of `POST /admin/teams`."""

    id: TeamName
    """The team's name."""


def given(body: BaseModel) -> dict[str, Any]:
    """The fields that a body names, null or not."""
    return {name: getattr(body, name) for name in body.model_fields_set}
