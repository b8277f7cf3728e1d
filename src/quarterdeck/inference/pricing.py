"""What a request costs, in exact decimals. Pure: usage and prices in, dollars out."""

from decimal import Context, Decimal

from quarterdeck.protocol.usage import Usage
from quarterdeck.settings.prices import Price

MILLISECONDS_AN_HOUR = Decimal(3_600_000)
_PICODOLLAR = Decimal("1e-12")
_CONTEXT = Context(prec=80)
"""Python's own context rounds at 28 digits: a price of 18 and a count of 10 just fit into that, their sum does not."""


def cost(usage: Usage, price: Price, *, engine_seconds: float = 0.0, shared_by: int = 1) -> Decimal:
    """Dollars, unrounded: cached and uncached prompt tokens and generated ones, each at its price.

    `engine_seconds` counts only where the price has a `gpu_hour`; to the millisecond, shared with `shared_by` requests.
    """
    exact = _CONTEXT
    cached_price = price.input if price.cached_input is None else price.cached_input
    tokens = exact.multiply(price.input, usage.input - usage.cached)
    tokens = exact.add(tokens, exact.multiply(cached_price, usage.cached))
    tokens = exact.add(tokens, exact.multiply(price.output, usage.output))
    total = exact.scaleb(tokens, -6)
    if price.gpu_hour:
        milliseconds = max(0, round(engine_seconds * 1000))
        hours = exact.divide(exact.multiply(price.gpu_hour, milliseconds), MILLISECONDS_AN_HOUR)
        # A quotient may have no end; twelve places are a millionth of a millionth of a dollar.
        total = exact.add(total, exact.quantize(exact.divide(hours, shared_by), _PICODOLLAR))
    return total
