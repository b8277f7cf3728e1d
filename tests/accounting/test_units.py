"""Prices of audio, speech and images, exactly."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quarterdeck.accounting.pricing import NO_TOKENS, Rates, cost, estimated_cost
from quarterdeck.accounting.units import UnitPrices, Units
from quarterdeck.money import microdollars
from quarterdeck.protocol.usage import Usage
from quarterdeck.settings.prices import Price

amounts = st.decimals(min_value=0, max_value=10**3, places=9, allow_nan=False)
counts = st.integers(0, 10**5)
prices = st.builds(Price, input=amounts, audio_second=amounts, thousand_characters=amounts, image=amounts)
units = st.builds(Units, counts, counts, counts)


def test_each_unit_has_its_price() -> None:
    rates = Rates.of(Price(audio_second=Decimal("0.0001"), thousand_characters=Decimal("0.015"), image=Decimal("0.02")))
    assert cost(NO_TOKENS, rates, units=Units(audio_ms=1)) == Decimal("0.0000001")
    assert cost(NO_TOKENS, rates, units=Units(characters=1)) == Decimal("0.000015")
    assert cost(NO_TOKENS, rates, units=Units(images=3)) == Decimal("0.06")


@given(prices, units, counts)
def test_a_cost_is_the_exact_sum_and_never_above_what_is_held(price: Price, given: Units, tokens: int) -> None:
    rates = Rates.of(price)
    assert price.audio_second is not None and price.thousand_characters is not None and price.image is not None
    parts = [
        price.input * tokens / 10**6,
        price.audio_second * given.audio_ms / 1000,
        price.thousand_characters * given.characters / 1000,
        price.image * given.images,
    ]
    total = cost(Usage(tokens, 0, 0, 0), rates, units=given)
    assert abs(total - sum(parts)) <= total * Decimal("1e-25")
    assert microdollars(total) <= estimated_cost(tokens, 0, rates, units=given) + 1
    assert estimated_cost(0, 0, rates, units=given) >= min(microdollars(total - parts[0]), 2**53 - 1)


@pytest.mark.parametrize("price", [Price(), Price(image=Decimal(0)), Price(input=Decimal(1), gpu_hour=Decimal(2))])
def test_without_such_a_price_units_cost_nothing(price: Price) -> None:
    assert UnitPrices.of(price) is None
    rates = Rates.of(price)
    assert cost(NO_TOKENS, rates, units=Units(1, 2, 3)) == 0 == estimated_cost(0, 0, rates, units=Units(1, 2, 3))
