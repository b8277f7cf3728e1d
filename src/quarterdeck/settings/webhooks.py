"""Webhooks: which addresses they may reach, their bounds, and alerts of budgets."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, field_validator

Percent = Annotated[int, Field(ge=1, le=1000)]


class WebhooksConfig(BaseModel):
    """Events that the worker posts to URLs of organisations (`/admin/webhooks`)."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    budget_thresholds: tuple[Percent, ...] = Field(default=(50, 80, 100), max_length=10)
    """Percentages of a budget at which `budget.threshold_reached` is sent, once each in a period. Empty: never.

    50, 80, 100: half of it, time to act, all of it.
    """
    allow_private_addresses: bool = False
    """Whether a webhook's URL may lead into private networks, such as to a Service of the cluster.

    Off: admins of organisations choose the URLs, and the worker could be made to call internal services.
    """
    timeout_seconds: float = Field(default=15, gt=0, le=30)
    """How long one delivery may take, from resolving the name to the response's status. 15: as Standard Webhooks
    recommends (15 to 30)."""
    max_endpoints: PositiveInt = Field(default=20, le=1000)
    """Endpoints of one organisation. 20: every event is posted to each that asks for it."""
    max_waiting: PositiveInt = Field(default=10_000, le=1_000_000)
    """Deliveries of one organisation that may wait; further ones are dropped and counted. 10,000: some 20 MB."""

    @field_validator("budget_thresholds")
    @classmethod
    def _are_sorted(cls, values: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(sorted(set(values)))
