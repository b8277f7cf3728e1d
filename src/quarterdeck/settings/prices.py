"""What tokens cost. A price table is versioned by its hash, so a ledger row says under which prices it was made."""

import hashlib
from decimal import Decimal

from pydantic import BaseModel, ConfigDict, Field


class Price(BaseModel):
    """Dollars per million tokens of one model."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    input: Decimal = Field(default=Decimal(0), ge=0, max_digits=18, decimal_places=9)
    """$ per 10⁶ prompt tokens that were not in the prefix cache. Write it as a string in YAML: it is exact then."""
    cached_input: Decimal | None = Field(default=None, ge=0, max_digits=18, decimal_places=9)
    """$ per 10⁶ prompt tokens that the engine's prefix cache held. None: as `input`."""
    output: Decimal = Field(default=Decimal(0), ge=0, max_digits=18, decimal_places=9)
    """$ per 10⁶ generated tokens, reasoning included."""
    gpu_hour: Decimal | None = Field(default=None, ge=0, max_digits=18, decimal_places=9)
    """$ an hour of one replica's hardware, for those who charge by hardware; added to the token prices.

    A request pays for its time at the engine, shared with as many as may run beside it (the endpoint's `max_running`).
    None: nothing is added.
    """

    @property
    def cached(self) -> Decimal:
        """What a cached prompt token costs: `cached_input`, or `input` where that is not set."""
        return self.input if self.cached_input is None else self.cached_input

    @property
    def version(self) -> str:
        """Twelve hex digits of the table's SHA-256: the same prices always have the same version, however written."""
        prices = (self.input, self.cached_input, self.output, self.gpu_hour)
        table = " ".join("-" if price is None else f"{price.normalize():f}" for price in prices)
        return hashlib.sha256(table.encode()).hexdigest()[:12]
