"""Prices of tokens, hardware, audio and images. A price table's version is its hash, so a ledger row identifies its
prices."""

import hashlib
from decimal import Decimal

from pydantic import BaseModel, ConfigDict, Field


class Price(BaseModel):
    """What one model costs: dollars per million tokens, and per second of audio, characters spoken and image."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    input: Decimal = Field(default=Decimal(0), ge=0, max_digits=18, decimal_places=9)
    """$ per 10⁶ prompt tokens outside the prefix cache. Write a string in YAML to keep it exact."""
    cached_input: Decimal | None = Field(default=None, ge=0, max_digits=18, decimal_places=9)
    """$ per 10⁶ prompt tokens from the engine's prefix cache. None: same as `input`."""
    output: Decimal = Field(default=Decimal(0), ge=0, max_digits=18, decimal_places=9)
    """$ per 10⁶ generated tokens, including reasoning."""
    gpu_hour: Decimal | None = Field(default=None, ge=0, max_digits=18, decimal_places=9)
    """$ per hour of one replica's hardware, to charge by hardware; added to the token prices.

    A request pays for its time at the engine, divided by the endpoint's `max_running`. Budgets hold the most that may
    be: the total timeout, divided by the smallest `max_running` of the model's endpoints. None: no charge.
    """

    audio_second: Decimal | None = Field(default=None, ge=0, max_digits=18, decimal_places=9)
    """$ per second of audio that is transcribed or translated; added to the token prices.

    The seconds that the engine reports count, else those of the file (docs/audio-and-images.md). None: no charge.
    """
    thousand_characters: Decimal | None = Field(default=None, ge=0, max_digits=18, decimal_places=9)
    """$ per 10³ characters of text that is turned into speech; added to the token prices. None: no charge."""
    image: Decimal | None = Field(default=None, ge=0, max_digits=18, decimal_places=9)
    """$ per image that is generated, whatever its size and quality; added to the token prices. None: no charge."""

    @property
    def cached(self) -> Decimal:
        """Price of a cached prompt token: `cached_input`, or `input` if that is not set."""
        return self.input if self.cached_input is None else self.cached_input

    @property
    def version(self) -> str:
        """Twelve hex digits of the table's SHA-256. Equal prices have equal versions, however they are written."""
        prices: tuple[Decimal | None, ...] = (self.input, self.cached_input, self.output, self.gpu_hour)
        units = (self.audio_second, self.thousand_characters, self.image)
        if units != (None, None, None):  # so that tables without them keep their version
            prices += units
        table = " ".join("-" if price is None else f"{price.normalize():f}" for price in prices)
        return hashlib.sha256(table.encode()).hexdigest()[:12]
