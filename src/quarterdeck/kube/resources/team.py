"""Team: limits, budget and priority shared by a team's keys. Keys and spend stay in the database."""

from typing import ClassVar, Self

from pydantic import ConfigDict, Field, model_validator

from quarterdeck.kube.conditions import Condition
from quarterdeck.kube.resources.embedded import BudgetSpec, LimitsSpec
from quarterdeck.kube.resources.object import FIXED_NAME, Column, Resource
from quarterdeck.kube.shape import Rule, Shape, StatusShape, with_rules
from quarterdeck.settings.content import CaptureLevel
from quarterdeck.settings.tenancy import Priority, TeamName

MAX_TEAM_NAME = 64
LONG_NAME = "metadata.name is longer than 64 characters: set spec.name"


class TeamSpec(Shape):
    """Settings shared by all keys of a team."""

    model_config = ConfigDict(json_schema_extra=with_rules(FIXED_NAME))

    name: TeamName | None = None
    """Name of the team. Unset: the object's name."""
    limits: LimitsSpec = LimitsSpec()
    """Limits counted over all keys; `maxTokens` applies to each request."""
    budget: BudgetSpec | None = None
    """Budget of all keys together. Unset: no limit."""
    priority: Priority = 0
    """Priority of keys without their own, 0 to 9; higher priorities go first in queues."""
    content: CaptureLevel | None = None
    """What is kept of inputs and outputs of its keys. Unset: the team does not say."""


class TeamUsage(StatusShape):
    """What the team uses, read from a gateway once a minute."""

    keys: int = 0
    """Keys that are not revoked."""
    spent: str | None = None
    """Dollars spent of the budget in its period. Unset: there is no budget."""
    left: str | None = None
    """Dollars left of the budget."""
    period_start: str | None = None
    """When the budget's period began. Unset: it has none."""


class TeamStatus(StatusShape):
    """What is."""

    observed_generation: int = 0
    """The generation of the spec that the status describes."""
    conditions: tuple[Condition, ...] = ()
    """Accepted, Routable, and Ready as their summary."""
    message: str = ""
    """The state in a sentence."""
    usage: TeamUsage | None = None
    """Keys and spend, at most a minute old while they change. The database holds them."""


class Team(Resource):
    """Limits, budget and priority of a team."""

    kind: ClassVar[str] = "Team"
    plural: ClassVar[str] = "teams"
    short_names: ClassVar[tuple[str, ...]] = ("tm",)
    columns: ClassVar[tuple[Column, ...]] = (
        Column("Ready", '.status.conditions[?(@.type=="Ready")].status'),
        Column("Reason", '.status.conditions[?(@.type=="Ready")].reason'),
        Column("Budget", ".spec.budget.amount"),
        Column("Period", ".spec.budget.period"),
        Column("Spent", ".status.usage.spent"),
        Column("Keys", ".status.usage.keys", "integer"),
        Column("Age", ".metadata.creationTimestamp", "date"),
        Column("Message", ".status.message", priority=1),
    )

    schema_rules: ClassVar[tuple[Rule, ...]] = (
        Rule("(has(self.spec) && has(self.spec.name)) || self.metadata.name.size() <= 64", LONG_NAME),
    )

    spec: TeamSpec = Field(default_factory=TeamSpec)
    """Settings shared by all keys of the team."""
    status: TeamStatus = TeamStatus()
    """What is."""

    @model_validator(mode="after")
    def _has_a_short_name(self) -> Self:
        if len(self.team_name) > MAX_TEAM_NAME:
            raise ValueError(LONG_NAME)
        return self

    @property
    def team_name(self) -> str:
        """Name of the team."""
        return self.spec.name or self.metadata.name
