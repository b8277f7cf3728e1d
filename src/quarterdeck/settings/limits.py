"""What a key may take: requests, tokens, concurrency. None means no limit."""

from pydantic import BaseModel, ConfigDict, PositiveInt


class Limits(BaseModel):
    """The limits of one key. Counted in Redis, so they hold over any number of gateways."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    requests_per_minute: PositiveInt | None = None
    """Requests admitted in a minute by the server's clock. None: unlimited, as on a laptop."""
    tokens_per_minute: PositiveInt | None = None
    """Prompt and completion tokens in a minute. A request reserves its estimate and gives back what it did not use."""
    concurrent_requests: PositiveInt | None = None
    """Requests under way at once, streams included."""
    max_tokens: PositiveInt | None = None
    """The largest `max_tokens` one request may ask for. A request that names none is held to it."""
