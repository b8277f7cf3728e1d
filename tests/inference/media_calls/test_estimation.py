"""No request costs more than is held for it, as long as its audio is no longer than its bound."""

from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st
from tests.inference.making import served

from quarterdeck.accounting.pricing import NO_TOKENS, Rates, cost
from quarterdeck.accounting.units import Units
from quarterdeck.inference.bounds import UNKNOWN
from quarterdeck.inference.estimation import most_cost
from quarterdeck.inference.media_calls.estimation import estimate_media, likely_usage, units_at_begin
from quarterdeck.money import microdollars
from quarterdeck.protocol.media_requests import MediaFacts
from quarterdeck.protocol.requests import MediaRequest
from quarterdeck.settings.prices import Price

amounts = st.decimals(min_value=0, max_value=10, places=9, allow_nan=False)
prices = st.builds(Price, audio_second=amounts, thousand_characters=amounts, image=amounts)
facts = st.builds(
    MediaFacts,
    parsed=st.just(MediaRequest("m")),
    characters=st.integers(0, 10**6),
    images=st.integers(0, 10),
    audio_ms=st.integers(0, 10**7),
    most_audio_ms=st.integers(10**7, 10**9),
    is_length_estimated=st.booleans(),
)


@given(facts, prices, st.none() | st.integers(1, 10**5))
def test_what_is_billed_at_the_beginning_is_within_what_is_held(
    given_facts: MediaFacts, price: Price, longest: int | None
) -> None:
    model = served(price=price)
    object.__setattr__(model, "max_audio_seconds", longest)
    reserved = estimate_media(given_facts, UNKNOWN, [model])
    units, _ = units_at_begin(given_facts, reserved)
    rates = Rates.of(price)
    assert microdollars(cost(NO_TOKENS, rates, units=units)) <= most_cost(reserved, rates)


def test_a_models_own_bound_of_audio_is_held() -> None:
    long = MediaFacts(MediaRequest("m"), most_audio_ms=3_600_000)
    price = Price(audio_second=Decimal("0.001"))
    bounded, open_ended = served(price=price), served("n", price=price)
    object.__setattr__(bounded, "max_audio_seconds", 60)
    assert most_cost(estimate_media(long, UNKNOWN, [bounded]), bounded.rates) == 60_000
    # Where one of the models that may answer has no bound, the file's size is it.
    assert most_cost(estimate_media(long, UNKNOWN, [bounded, open_ended]), bounded.rates) == 3_600_000


def test_a_length_that_is_stated_is_held_and_billed_and_one_that_is_estimated_only_up_to_the_models_bound() -> None:
    bounded = served()
    object.__setattr__(bounded, "max_audio_seconds", 60)
    for is_estimated, length in ((False, 600_000), (True, 60_000)):
        long = MediaFacts(
            MediaRequest("m"), audio_ms=600_000, is_length_estimated=is_estimated, most_audio_ms=2_400_000
        )
        reserved = estimate_media(long, UNKNOWN, [bounded])
        assert reserved.units == units_at_begin(long, reserved)[0] == Units(audio_ms=length)


def test_tokens_are_held_where_they_have_a_price() -> None:
    price = Price(input=Decimal(1), output=Decimal(10))
    reserved = estimate_media(MediaFacts(MediaRequest("m"), images=2, text_bytes=100), UNKNOWN, [served(price=price)])
    assert most_cost(reserved, Rates.of(price)) >= 2 * 6240 * 10
    assert reserved.units == Units(images=2)


@given(facts)
def test_an_estimate_of_tokens_is_within_what_is_held(given_facts: MediaFacts) -> None:
    price = Price(input=Decimal(1), output=Decimal(10))
    reserved, likely = estimate_media(given_facts, UNKNOWN, [served(price=price)]), likely_usage(given_facts)
    assert likely.input <= reserved.most_prompt and likely.output <= reserved.most_output
