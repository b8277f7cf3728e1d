"""Versions of price tables."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from quarterdeck.settings.prices import Price

amounts = st.decimals(min_value=0, max_value=10**6, places=9, allow_nan=False)
prices = st.builds(Price, input=amounts, cached_input=st.none() | amounts, output=amounts, gpu_hour=st.none() | amounts)


@given(prices, prices)
def test_versions_are_equal_where_the_prices_are(one: Price, other: Price) -> None:
    assert (one.version == other.version) == (one == other)


@pytest.mark.parametrize("written", ["0.1", "0.10", "0.100000000", "1e-1", 0.1])
def test_a_price_is_the_same_however_it_is_written(written: str | float) -> None:
    price = Price.model_validate({"input": written, "output": "100"})
    assert price.input == Decimal("0.1")
    assert price.version == Price(input=Decimal("0.1"), output=Decimal("1E+2")).version


def test_each_field_counts_for_the_version() -> None:
    one = Decimal(1)
    versions = {
        price.version
        for price in (
            Price(),
            Price(input=one),
            Price(cached_input=one),
            Price(cached_input=Decimal(0)),
            Price(output=one),
            Price(gpu_hour=one),
        )
    }
    assert len(versions) == 6


@pytest.mark.parametrize("written", ["-1", "NaN", "Infinity", "0.0000000001", "1234567890.123456789"])
def test_what_is_no_price_is_refused(written: str) -> None:
    with pytest.raises(ValidationError):
        Price.model_validate({"input": written})
