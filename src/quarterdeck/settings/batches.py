"""Batches: how many run, how much of the engines they take, and what they cost."""

from decimal import Decimal

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt


class BatchesConfig(BaseModel):
    """Requests of files, executed by the worker when there is room for them (`/v1/batches`)."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    max_running: PositiveInt = Field(default=4, le=64)
    """Batches that one worker executes at once; further ones wait. 4: each has its requests, results and a piece of its
    input in memory, some 20 MB; of large requests and answers so few at once that they have 16 and 128 MiB
    together."""
    max_concurrency: PositiveInt = Field(default=64, le=1024)
    """Requests of one batch at once. Fewer are sent where engines or limits refuse some: half as many after a refusal,
    one more after as many successes (after each, while there was no refusal for five seconds). 64: what one engine runs
    at once by default."""
    idle_share: float = Field(default=0.9, gt=0, le=1)
    """Share of an endpoint's `max_running` up to which it is given requests of batches, while it runs no others. 0.9:
    those that come then find a place at once."""
    busy_share: float = Field(default=0.02, ge=0, le=1)
    """The same while it runs others, or was sent one in the last ten seconds; at least one request.

    0.02: an engine's steps take longer the more it runs. One of 64 places, whose steps take twice as long when it is
    full, is slowed down by 2 % by one request.
    """
    price_share: Decimal = Field(default=Decimal(1), ge=0, le=1)
    """What a request of a batch costs, as a share of the model's price. 1: no discount; OpenAI's is 0.5. Budgets hold
    the full price while it runs."""
    retention_days: PositiveFloat = Field(default=30, le=3650)
    """Days after their end after which batches are deleted, with their output and error files. A batch may state an
    earlier time for its files (`output_expires_after`). 30: as OpenAI's."""
    max_waiting: PositiveInt = Field(default=100, le=10_000)
    """Batches of one organisation that may be unfinished; the next one is refused. 100: five million requests."""
