from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quarterdeck.money import (
    MAX_MICRODOLLARS,
    budget_microdollars,
    dollars_text,
    microdollars,
    microdollars_of_units,
    picodollars,
    plain_text,
)


@pytest.mark.parametrize(
    ("dollars", "whole"), [("0", 0), ("0.000001", 1), ("0.0000010000000000000000001", 2), ("12.5", 12_500_000)]
)
def test_budgets_count_whole_microdollars_rounded_up(dollars: str, whole: int) -> None:
    assert microdollars(Decimal(dollars)) == whole


@given(st.integers(0, 10**18), st.integers(-20, 3))
def test_units_are_rounded_as_dollars_are(units: int, exponent: int) -> None:
    assert microdollars_of_units(units, exponent) == microdollars(Decimal(units).scaleb(exponent))


def test_a_budgets_amount_is_rounded_down_and_bounded() -> None:
    assert budget_microdollars(Decimal("0.0000019")) == 1
    assert budget_microdollars(Decimal("1e30")) == MAX_MICRODOLLARS


def test_a_quotient_has_twelve_places() -> None:
    assert picodollars(Decimal(2) / 3) == Decimal("0.666666666667")


@pytest.mark.parametrize(
    ("amount", "text"), [(0, "0"), (1, "0.000001"), (1_500_000, "1.5"), (20_000_000, "20"), (-5, "-0.000005")]
)
def test_microdollars_are_shown_as_dollars(amount: int, text: str) -> None:
    assert dollars_text(amount) == text


def test_the_text_of_an_amount_has_every_digit_and_no_trailing_zero() -> None:
    for text, written in (
        ("0.100", "0.1"),
        ("1E-18", "0.000000000000000001"),
        ("100", "100"),
        ("2.000", "2"),
        ("0", "0"),
    ):
        assert plain_text(Decimal(text)) == written
