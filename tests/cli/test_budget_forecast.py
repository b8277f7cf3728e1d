"""The forecast of a budget is linear and exact."""

from decimal import Decimal
from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from quarterdeck.cli.budget_forecast import forecast

MONEY = st.integers(0, 10**15).map(lambda millionths: Decimal(millionths).scaleb(-6))
AMOUNT = st.integers(1, 10**15).map(lambda millionths: Decimal(millionths).scaleb(-6))


@st.composite
def periods(draw: st.DrawFn) -> tuple[int, int, int]:
    """Start, end and now, not too early."""
    start, length = draw(st.integers(0, 2**31)), draw(st.integers(86_400, 31 * 86_400))
    return start, start + length, start + draw(st.integers(length // 100 + 1, length))


@given(MONEY, AMOUNT, periods())
def test_it_is_the_pace_so_far_to_twelve_places(spent: Decimal, amount: Decimal, period: tuple[int, int, int]) -> None:
    start, end, now = period
    found = forecast(spent, amount, start, end, now)
    assert found is not None
    exact = Fraction(spent) * (end - start) / (now - start)
    assert abs(Fraction(found.at_end) - exact) <= Fraction(1, 2 * 10**12)
    assert found.at_end >= spent
    assert now != end or found.at_end == spent


@given(MONEY, AMOUNT, periods())
def test_a_budget_is_used_up_in_its_period_where_the_forecast_says_so(
    spent: Decimal, amount: Decimal, period: tuple[int, int, int]
) -> None:
    start, end, now = period
    found = forecast(spent, amount, start, end, now)
    assert found is not None
    is_exceeded = Fraction(spent) * (end - start) >= Fraction(amount) * (now - start)
    assert (found.runs_out is not None) == is_exceeded
    if found.runs_out is None:
        return
    if spent >= amount:
        assert found.runs_out == now
        return
    assert now < found.runs_out <= end
    pace = Fraction(spent) / (now - start)
    assert pace * (found.runs_out - start) >= Fraction(amount) > pace * (found.runs_out - 1 - start)


@given(MONEY, AMOUNT, periods())
def test_twice_the_spending_is_twice_the_forecast(
    spent: Decimal, amount: Decimal, period: tuple[int, int, int]
) -> None:
    once, twice = forecast(spent, amount, *period), forecast(2 * spent, amount, *period)
    assert once is not None and twice is not None
    assert abs(twice.at_end - 2 * once.at_end) <= Decimal("2e-12")


def test_a_period_that_has_only_begun_has_none() -> None:
    assert forecast(Decimal(1), Decimal(2), 1000, 87_400, 1000) is None
    assert forecast(Decimal(1), Decimal(2), 1000, 87_400, 1800) is None
    assert forecast(Decimal(1), Decimal(2), 1000, 87_400, 1864) is not None
