"""What a request costs, in exact decimals. Pure: usage and prices in, dollars out."""

from dataclasses import dataclass
from decimal import Context, Decimal

from quarterdeck.protocol.usage import Usage
from quarterdeck.settings.prices import Price

MILLISECONDS_AN_HOUR = Decimal(3_600_000)
_PICODOLLAR = Decimal("1e-12")
_CONTEXT = Context(prec=80)
"""Python's own context rounds at 28 digits: a price of 18 and a count of 10 just fit into that, their sum does not."""


@dataclass(frozen=True, slots=True)
class Rates:
    """A price as whole numbers of 10**exponent dollars a token: a decimal made once a request, not six times."""

    input: int
    cached: int
    output: int
    exponent: int
    gpu_hour: Decimal | None

    @classmethod
    def of(cls, price: Price) -> "Rates":
        each = (price.input, price.cached, price.output)
        exponent = min(int(number.as_tuple().exponent) for number in each)
        whole = [int(number.scaleb(-exponent, _CONTEXT)) for number in each]
        return cls(whole[0], whole[1], whole[2], exponent - 6, price.gpu_hour)


def cost(usage: Usage, rates: Rates, *, engine_seconds: float = 0.0, shared_by: int = 1) -> Decimal:
    """Dollars, unrounded: cached and uncached prompt tokens and generated ones, each at its price.

    `engine_seconds` counts only where the price has a `gpu_hour`; to the millisecond, shared with `shared_by` requests.
    """
    exact = _CONTEXT
    uncached = usage.input - usage.cached
    tokens = rates.input * uncached + rates.cached * usage.cached + rates.output * usage.output
    total = Decimal(tokens).scaleb(rates.exponent, exact)
    if rates.gpu_hour:
        milliseconds = max(0, round(engine_seconds * 1000))
        hours = exact.divide(exact.multiply(rates.gpu_hour, milliseconds), MILLISECONDS_AN_HOUR)
        # A quotient may have no end; twelve places are a millionth of a millionth of a dollar.
        total = exact.add(total, exact.quantize(exact.divide(hours, shared_by), _PICODOLLAR))
    return total


def estimated_cost(prompt_tokens: int, output_tokens: int, rates: Rates) -> int:
    """What a budget holds for a request, in 10⁻⁶ $, rounded up: all of the prompt at the dearer of its two prices, and
    the longest answer. 0: it is free.

    Time at the engine (`gpu_hour`) is not known before: such a request holds one millionth at least.
    """
    units = max(rates.input, rates.cached) * prompt_tokens + rates.output * output_tokens
    places = rates.exponent + 6
    power: int = 10 ** abs(places)
    money = units * power if places >= 0 else -(-units // power)
    return max(money, 1) if rates.gpu_hour else money
