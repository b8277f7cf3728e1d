"""Who may take what: `org:`, `teams:` and `keys:` of quarterdeck.yaml.

What stands in the file is owned by it: limits, budget, priority and tags of an object that it names are read here and
nowhere else, and the admin API refuses to change them. What it does not name lives in the database. The file speaks of
the platform's own organisation, `default`; others live in the database alone.
"""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from quarterdeck.settings.limits import Budget, Limits

Priority = Annotated[int, Field(ge=0, le=9)]
Tag = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[^\x00-\x1f\x7f]+$")]
Tags = Annotated[tuple[Tag, ...], Field(max_length=16)]
TeamName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]


class KeyConfig(BaseModel):
    """What keys of this name may take. They are made by API or CLI; the file holds no secret."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    limits: Limits | None = None
    """They replace the default limits. None: the default limits hold."""
    budget: Budget | None = None
    """Money of each key of this name. None: only its team's and organisation's budgets bound it."""
    priority: Priority | None = None
    """0 to 9; under saturation the higher goes first. None: its team's."""
    tags: Tags = ()
    """Put on every record and trace of the key, for reports."""


class TeamConfig(BaseModel):
    """What all keys of a team may take together."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    limits: Limits = Limits()
    """Counted over all of its keys; `max_tokens` holds for each request."""
    budget: Budget | None = None
    """Money of all of its keys together. None: no bound."""
    priority: Priority = 0
    """Of its keys that have none of their own."""


class OrgConfig(BaseModel):
    """What the whole organisation may take."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    limits: Limits = Limits()
    """Counted over all of its keys; `max_tokens` holds for each request."""
    budget: Budget | None = None
    """Money of all of its keys together. None: no bound."""
