"""Rounding of money: dollars are exact `Decimal`s in records and prices, whole 10⁻⁶ $ (microdollars) in budgets.

A request's cost is rounded up and a budget's amount down, so that rounding never lets a budget be exceeded. In SQL the
same is `ceil(cost * 1_000_000)` (`store/spending`). It is in the lowest layer, because records, store and
accounting use it.
"""

import math
from decimal import Context, Decimal

EXACT = Context(prec=80)
"""Python's default context rounds at 28 digits: a price of 18 digits times a count of 10 just fits, a sum does not."""
SUM_DIGITS = 200
"""Precision for sums and splits of many costs: every sum of the ledger's costs is exact."""
MAX_MICRODOLLARS = 2**53 - 1
"""Nine billion dollars. Redis' Lua counts in doubles, which are exact up to here."""
_PICODOLLAR = Decimal("1e-12")


def microdollars(cost: Decimal) -> int:
    """What a request adds to budgets: its cost in 10⁻⁶ $, rounded up."""
    return math.ceil(cost.scaleb(6, EXACT))


def microdollars_of_units(units: int, exponent: int) -> int:
    """`units` x 10**exponent dollars in 10⁻⁶ $, rounded up. Integers only: it runs once for each request."""
    places = exponent + 6
    power: int = 10 ** abs(places)
    return units * power if places >= 0 else -(-units // power)


def budget_microdollars(amount: Decimal) -> int:
    """A budget's amount in 10⁻⁶ $, rounded down; at most MAX_MICRODOLLARS."""
    return min(int(amount.scaleb(6, EXACT)), MAX_MICRODOLLARS)


def picodollars(quotient: Decimal) -> Decimal:
    """Dollars to twelve places, half to even: for a quotient, whose decimals may not end."""
    return EXACT.quantize(quotient, _PICODOLLAR)


def dollars_text(amount: int) -> str:
    """10⁻⁶ $ as dollars in plain notation, without trailing zeros."""
    return plain_text(Decimal(amount).scaleb(-6))


def plain_text(amount: Decimal) -> str:
    """Dollars with every digit and no trailing zeros, so that both databases give the same text."""
    text = format(amount, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text
