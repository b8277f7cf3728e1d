"""Batches: how many run, how much of the engines they take, and what they cost."""

from decimal import Decimal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt


class BatchesConfig(BaseModel):
    """Requests of files, executed by the worker when there is room for them (`/v1/batches`)."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    max_running: PositiveInt = Field(default=4, le=64)
    """Batches that one worker executes at once; further ones wait. 4: each has its requests, results and a piece of its
    input in memory, some 20 MB."""
    max_concurrency: PositiveInt = Field(default=64, le=1024)
    """Requests of one batch at once. Fewer are sent where engines or limits refuse some: half as many after a refusal,
    one more after as many successes. 64: what one engine runs at once by default."""
    idle_share: float = Field(default=0.5, gt=0, le=1)
    """Share of an endpoint's `max_running` up to which it is given requests of batches, those of others included. Above
    it they wait, so that other requests find room.

    0.5: an engine's steps take longer the more it runs, so a batch that fills it would slow others down.
    """
    price_share: Decimal = Field(default=Decimal(1), ge=0, le=1)
    """What a request of a batch costs, as a share of the model's price. 1: no discount; OpenAI's is 0.5. Budgets hold
    the full price while it runs."""
    max_waiting: PositiveInt = Field(default=100, le=10_000)
    """Batches of one organisation that may be unfinished; the next one is refused. 100: five million requests."""
