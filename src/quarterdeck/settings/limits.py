"""Limits of a key, team or organisation: requests, tokens, concurrency, money. None means no limit."""

from decimal import Decimal
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

MAX_LIMIT = 10**12
"""More than any platform serves in a minute; Redis' Lua counts in doubles, which are exact below 2⁵³."""
Limit = Annotated[int, Field(gt=0, le=MAX_LIMIT)]


class Limits(BaseModel):
    """Limits of one key, team or organisation. Counted in Redis, so they hold across gateways."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    requests_per_minute: Limit | None = None
    """Requests admitted per minute, by Redis' clock. None: unlimited, as on a laptop."""
    tokens_per_minute: Limit | None = None
    """Prompt and completion tokens per minute. A request reserves its estimate and returns what it does not use."""
    concurrent_requests: Limit | None = None
    """Requests in flight at once, including streams."""
    max_tokens: Limit | None = None
    """Maximum `max_tokens` of a request. Also applied to requests that set none."""


class Budget(BaseModel):
    """A spending limit per period."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    amount: Decimal = Field(gt=0, max_digits=18, decimal_places=6)
    """US dollars. Write a string in YAML to keep it exact."""
    period: Literal["day", "week", "month", "total"] = "month"
    """Calendar period in UTC; weeks begin on Monday. total: never resets."""
    on_exhausted: Literal["deny", "warn"] = "deny"
    """deny: 429 `insufficient_quota`. warn: the request is served, with a response header and a metric."""
