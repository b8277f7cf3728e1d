"""What a request costs, in exact decimals. Pure: usage and prices in, dollars out."""

from decimal import Decimal

from quarterdeck.protocol.usage import Usage
from quarterdeck.settings.prices import Price

MILLION = Decimal(1_000_000)
HOUR = Decimal(3600)


def cost(usage: Usage, price: Price, *, engine_seconds: float = 0.0, shared_by: int = 1) -> Decimal:
    """Dollars, unrounded: cached and uncached prompt tokens and generated ones, each at its price.

    `engine_seconds` counts only where the price has a `gpu_hour`; to the millisecond, shared with `shared_by` requests.
    """
    cached_price = price.input if price.cached_input is None else price.cached_input
    tokens = (usage.input - usage.cached) * price.input + usage.cached * cached_price + usage.output * price.output
    total = tokens / MILLION
    if price.gpu_hour:
        milliseconds = Decimal(max(0, round(engine_seconds * 1000)))
        # A quotient may have no end; twelve places are a millionth of a millionth of a dollar.
        total += (price.gpu_hour * milliseconds / (1000 * HOUR) / shared_by).quantize(Decimal("1e-12"))
    return total
