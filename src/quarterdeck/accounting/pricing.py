"""What a request costs, in exact decimals. Pure: usage and prices in, dollars out. `quarterdeck.money` rounds."""

from dataclasses import dataclass
from decimal import Decimal

from quarterdeck.accounting.units import UnitPrices, Units
from quarterdeck.money import EXACT, MAX_MICRODOLLARS, microdollars, microdollars_of_units, picodollars
from quarterdeck.protocol.usage import Usage
from quarterdeck.settings.prices import Price

MILLISECONDS_PER_HOUR = Decimal(3_600_000)
NO_TOKENS = Usage(0, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class Rates:
    """A price as whole numbers of 10**exponent dollars a token: one decimal is made per request, not six."""

    input: int
    cached: int
    output: int
    exponent: int
    gpu_hour: Decimal | None
    units: UnitPrices | None = None
    """Of audio and images. None: they cost nothing."""

    @classmethod
    def of(cls, price: Price) -> "Rates":
        each = (price.input, price.cached, price.output)
        exponent = min(int(number.as_tuple().exponent) for number in each)
        whole = [int(number.scaleb(-exponent, EXACT)) for number in each]
        return cls(whole[0], whole[1], whole[2], exponent - 6, price.gpu_hour, UnitPrices.of(price))

    def tokens_for(self, money: int) -> int:
        """How many generated tokens `money` (10⁻⁶ $) pays for; there must be a price for them."""
        places = self.exponent + 6
        power: int = 10 ** abs(places)
        units = money // power if places > 0 else money * power
        return max(0, units // self.output)


def cost(
    usage: Usage, rates: Rates, *, engine_seconds: float = 0.0, shared_by: int = 1, units: Units | None = None
) -> Decimal:
    """Dollars, unrounded: uncached and cached prompt tokens, generated ones, and units, each at its price.

    `engine_seconds` counts only where the price has a `gpu_hour`: to the millisecond, divided among `shared_by`
    requests, and to twelve places of a dollar.
    """
    uncached = usage.input - usage.cached
    tokens = rates.input * uncached + rates.cached * usage.cached + rates.output * usage.output
    total = Decimal(tokens).scaleb(rates.exponent, EXACT)
    if rates.gpu_hour:
        milliseconds = max(0, round(engine_seconds * 1000))
        hours = EXACT.divide(EXACT.multiply(rates.gpu_hour, milliseconds), MILLISECONDS_PER_HOUR)
        total = EXACT.add(total, picodollars(EXACT.divide(hours, shared_by)))
    if units is not None and rates.units is not None:
        total = EXACT.add(total, rates.units.cost(units))
    return total


def share_of(cost: Decimal, share: Decimal) -> Decimal:
    """A share of a cost, exactly."""
    return EXACT.multiply(cost, share)


def estimated_cost(
    prompt_tokens: int, output_tokens: int, rates: Rates, *, engine_seconds: float = 0.0, units: Units | None = None
) -> int:
    """What a budget holds for a request, in 10⁻⁶ $, rounded up: the whole prompt at the higher of its two prices, the
    longest answer, its share of the longest time at the engine, and the most units. 0: it is free.
    """
    prompt_rate = rates.input if rates.input > rates.cached else rates.cached
    tokens = prompt_rate * prompt_tokens + rates.output * output_tokens
    money = microdollars_of_units(tokens, rates.exponent)
    if money > MAX_MICRODOLLARS:
        money = MAX_MICRODOLLARS
    if rates.gpu_hour or (units is not None and rates.units is not None):
        rest = cost(NO_TOKENS, rates, engine_seconds=engine_seconds, units=units)
        return min(money + microdollars(rest), MAX_MICRODOLLARS)
    return money
