"""What audio and image requests are billed by besides tokens."""

from dataclasses import dataclass
from decimal import Decimal

import msgspec

from quarterdeck.money import EXACT
from quarterdeck.settings.prices import Price

_THOUSANDTH = Decimal("0.001")


class Units(msgspec.Struct, frozen=True, gc=False):
    """Counts of one request."""

    audio_ms: int = 0
    """Milliseconds of audio that was transcribed or translated."""
    characters: int = 0
    """Of text that was turned into speech."""
    images: int = 0
    """Images that were generated."""


@dataclass(frozen=True, slots=True)
class UnitPrices:
    """Dollars for each unit."""

    audio_second: Decimal
    thousand_characters: Decimal
    image: Decimal

    @classmethod
    def of(cls, price: Price) -> "UnitPrices | None":
        """None: units cost nothing."""
        found = [each or Decimal(0) for each in (price.audio_second, price.thousand_characters, price.image)]
        return cls(*found) if any(found) else None

    def cost(self, units: Units) -> Decimal:
        """Dollars, exact."""
        audio = EXACT.multiply(EXACT.multiply(self.audio_second, units.audio_ms), _THOUSANDTH)
        text = EXACT.multiply(EXACT.multiply(self.thousand_characters, units.characters), _THOUSANDTH)
        return EXACT.add(EXACT.add(audio, text), EXACT.multiply(self.image, units.images))
