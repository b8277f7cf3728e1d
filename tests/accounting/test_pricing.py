"""Money is exact to the last digit."""

from decimal import Decimal
from fractions import Fraction
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from quarterdeck.accounting.pricing import Rates
from quarterdeck.accounting.pricing import cost as cost_at
from quarterdeck.protocol.usage import MAX_COUNT, Usage
from quarterdeck.settings.prices import Price


def cost(usage: Usage, price: Price, **more: Any) -> Decimal:
    return cost_at(usage, Rates.of(price), **more)


counts = st.integers(0, MAX_COUNT)
prices = st.decimals(min_value=0, max_value=Decimal("999999999.999999999"), places=9, allow_nan=False)


@st.composite
def usages(draw: st.DrawFn) -> Usage:
    total, output = draw(counts), draw(counts)
    return Usage(total, draw(st.integers(0, total)), output, draw(st.integers(0, output)))


@given(usages(), prices, st.none() | prices, prices)
def test_a_cost_is_the_sum_of_its_tokens_each_at_its_price(
    usage: Usage, per_input: Decimal, per_cached: Decimal | None, per_output: Decimal
) -> None:
    price = Price(input=per_input, cached_input=per_cached, output=per_output)
    cached = per_input if per_cached is None else per_cached
    exact = (
        Fraction(per_input) * (usage.input - usage.cached)
        + Fraction(cached) * usage.cached
        + Fraction(per_output) * usage.output
    ) / 1_000_000
    assert Fraction(cost(usage, price)) == exact


@given(st.lists(usages(), max_size=20), prices, prices)
def test_the_cost_of_many_is_the_sum_of_their_costs(many: list[Usage], per_input: Decimal, per_output: Decimal) -> None:
    price = Price(input=per_input, output=per_output)
    whole = Usage(sum(usage.input for usage in many), 0, sum(usage.output for usage in many), 0)
    assert sum(Fraction(cost(usage, price)) for usage in many) == Fraction(cost(whole, price))


@given(prices, st.floats(0, 10**6), st.integers(1, 512))
def test_hardware_is_paid_by_the_millisecond_and_shared(an_hour: Decimal, seconds: float, shared_by: int) -> None:
    found = cost(Usage(0, 0, 0, 0), Price(gpu_hour=an_hour), engine_seconds=seconds, shared_by=shared_by)
    exact = Fraction(an_hour) * round(seconds * 1000) / 3_600_000 / shared_by
    assert abs(Fraction(found) - exact) <= Fraction(1, 10**12)


def test_hardware_comes_on_top_of_tokens() -> None:
    price = Price(input=Decimal(1), gpu_hour=Decimal("3.6"))
    assert cost(Usage(10**6, 0, 0, 0), price, engine_seconds=1.0, shared_by=1) == Decimal("1.001")


def test_time_that_ran_backwards_costs_nothing() -> None:
    assert cost(Usage(0, 0, 0, 0), Price(gpu_hour=Decimal(1)), engine_seconds=-5.0) == 0


def test_a_price_that_is_not_set_is_free() -> None:
    assert cost(Usage(5, 1, 5, 0), Price(), engine_seconds=100.0) == 0
