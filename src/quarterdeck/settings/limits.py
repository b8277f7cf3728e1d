"""What a key, a team or an organisation may take: requests, tokens, concurrency, money. None means no limit."""

from decimal import Decimal
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt


class Limits(BaseModel):
    """Limits of one key, team or organisation. Counted in Redis, so they hold over any number of gateways."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    requests_per_minute: PositiveInt | None = None
    """Requests admitted in a minute by the server's clock. None: unlimited, as on a laptop."""
    tokens_per_minute: PositiveInt | None = None
    """Prompt and completion tokens in a minute. A request reserves its estimate and gives back what it did not use."""
    concurrent_requests: PositiveInt | None = None
    """Requests under way at once, streams included."""
    max_tokens: PositiveInt | None = None
    """The largest `max_tokens` one request may ask for. A request that names none is held to it."""


class Budget(BaseModel):
    """How much money may be spent in a period."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    amount: Decimal = Field(gt=0, max_digits=18, decimal_places=6)
    """$. Write it as a string in YAML: it is exact then."""
    period: Literal["day", "week", "month", "total"] = "month"
    """The calendar's, in UTC; a week begins on Monday. total: once and never again."""
    on_exhausted: Literal["deny", "warn"] = "deny"
    """deny: 429 `insufficient_quota`; warn: the request goes on, with a header and a count."""
