"""What a budget will have cost at the end of its period, by the pace of the period so far. Pure, exact decimals."""

import math
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

from quarterdeck.money import EXACT, picodollars

METHOD = "forecast: spent so far x length of the period / time so far"
EARLY = 100
"""A forecast after less than this part of the period says nothing."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """By a linear pace."""

    at_end: Decimal
    """$ at the end of the period, to twelve places."""
    runs_out: int | None
    """Unix seconds at which the budget is used up, within the period. None: it lasts."""


def forecast(spent: Decimal, amount: Decimal, start: int, end: int, now: int) -> Forecast | None:
    """`spent` from `start` to `now`, in a period to `end` (Unix seconds). None: the period has only begun."""
    elapsed = min(now, end) - start
    if elapsed <= 0 or elapsed * EARLY < end - start:
        return None
    at_end = picodollars(EXACT.divide(EXACT.multiply(spent, Decimal(end - start)), Decimal(elapsed)))
    if spent >= amount:
        return Forecast(at_end, min(now, end))
    if not spent:
        return Forecast(at_end, None)
    # Rounded up: at that second it is used up.
    seconds = math.ceil(Fraction(amount) * elapsed / Fraction(spent))
    return Forecast(at_end, start + seconds if start + seconds <= end else None)
