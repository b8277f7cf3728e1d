"""Limits, budgets and priorities: `org:`, `teams:` and `keys:` of quarterdeck.yaml.

The file owns the objects it names: their limits, budget, priority and tags come only from here, and the admin API
refuses to change them. All other objects are stored in the database. The file covers only the platform's own
organisation, `default`; other organisations exist only in the database.
"""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat

from quarterdeck.settings.content import CaptureLevel
from quarterdeck.settings.limits import Budget, Limits

Priority = Annotated[int, Field(ge=0, le=9)]
Tag = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[^\x00-\x1f\x7f]+$")]
Tags = Annotated[tuple[Tag, ...], Field(max_length=16)]
TeamName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]


class KeyConfig(BaseModel):
    """Settings of keys with this name. Keys are created by API or CLI; the file holds no secrets."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    limits: Limits | None = None
    """Replace the default limits. None: the default limits apply."""
    budget: Budget | None = None
    """Budget of each key with this name. None: only the team's and organisation's budgets apply."""
    priority: Priority | None = None
    """0 to 9; higher priorities go first in queues. None: the team's priority."""
    tags: Tags = ()
    """Tags on every record and trace of the key, for reports."""
    content: CaptureLevel | None = None
    """What is kept of its inputs and outputs. The strictest of key, team, organisation, route and model applies. None:
    the key does not say."""


class TeamConfig(BaseModel):
    """Settings shared by all keys of a team."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    limits: Limits = Limits()
    """Limits counted over all keys; `max_tokens` applies to each request."""
    budget: Budget | None = None
    """Budget of all keys together. None: no limit."""
    priority: Priority = 0
    """Priority of keys without their own."""
    content: CaptureLevel | None = None
    """What is kept of inputs and outputs of its keys. None: the team does not say."""


class OrgConfig(BaseModel):
    """Settings of the whole organisation."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    limits: Limits = Limits()
    """Limits counted over all keys; `max_tokens` applies to each request."""
    budget: Budget | None = None
    """Budget of all keys together. None: no limit."""
    content: CaptureLevel | None = None
    """What is kept of inputs and outputs. No team, key or route can turn on what this turns off. None:
    `content.capture` applies to those who don't say."""
    content_days: PositiveFloat | None = None
    """Days after which contents are deleted. None: `content.retention_days`."""
