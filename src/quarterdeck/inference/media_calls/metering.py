"""What an audio or image request has used, by what its engine says of it, and by an estimate where it says nothing."""

import msgspec

from quarterdeck.accounting.pricing import NO_TOKENS
from quarterdeck.inference.media_calls.estimation import likely_usage
from quarterdeck.inference.metering.meter import Meter
from quarterdeck.protocol.media_answers import Reported
from quarterdeck.protocol.media_requests import MediaFacts
from quarterdeck.protocol.usage import Usage


def take_usage(meter: Meter, usage: Usage | None) -> None:
    """The engine's tokens. A length of audio that is estimated stays so."""
    source = meter.usage_source
    meter.take_usage(usage)
    if source == "estimated":
        meter.usage_source = source


def take_report(meter: Meter, found: Reported) -> None:
    """What the engine says of an answer, or in an event, counts before what was sent."""
    take_usage(meter, found.usage)
    units = meter.units
    if units is not None and found.audio_ms is not None and units.audio_ms:
        meter.units, meter.usage_source = msgspec.structs.replace(units, audio_ms=found.audio_ms), "engine"


def take_missing(meter: Meter, facts: MediaFacts, *, is_estimated: bool) -> None:
    """The tokens of an answer that the engine has not counted. `is_estimated`: because of what the client did (it hung
    up, or chose a form that has no place for them), so that this is no way to pay nothing where tokens have a price."""
    if meter.usage is not None:
        return
    rates = meter.served.rates
    if not is_estimated or not (rates.input or rates.output):
        meter.usage = NO_TOKENS
        return
    likely = likely_usage(facts)
    meter.usage, meter.usage_source = meter.bounded(likely.input, likely.output), "estimated"
