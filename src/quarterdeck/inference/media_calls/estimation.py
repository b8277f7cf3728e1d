"""What is reserved for an audio or image request before it runs, and what is known of it when its answer begins. Pure.

As for texts (`inference/estimation`), limits reserve likely tokens and budgets hold the most that it can cost.
"""

from collections.abc import Iterable

from quarterdeck.accounting.units import Units
from quarterdeck.inference.bounds import Bounds
from quarterdeck.inference.estimation import CHARACTERS_PER_TOKEN, MAX_ESTIMATE, Estimate
from quarterdeck.inference.routing.directory import ServedModel
from quarterdeck.protocol.media_requests import MediaFacts
from quarterdeck.protocol.usage import Usage
from quarterdeck.record import UsageSource

AUDIO_TOKENS_PER_SECOND = 50
"""Prompt tokens that models make of a second of audio, at most."""
TEXT_TOKENS_PER_SECOND = 16
"""Tokens of a transcript for a second of audio, at most: Whisper has 448 for each 30 seconds."""
SPEECH_TOKENS_PER_CHARACTER = 8
"""Audio tokens for a character of text, at most: 82 a second, of ten characters."""
IMAGE_OUTPUT_TOKENS = 8192
"""Of one generated image, at most: OpenAI's largest at the highest quality has 6,240."""
LIKELY_AUDIO_TOKENS, LIKELY_TEXT_TOKENS = 25, 4
"""For a second of audio, and of its transcript: between what models differ in."""
LIKELY_SPEECH_TOKENS = 2
"""For a character of text."""
LIKELY_IMAGE_TOKENS = 1056
"""OpenAI's of one image of 1024 x 1024 at medium quality."""
MARGIN = 64
"""Tokens that a template adds."""


def estimate_media(facts: MediaFacts, bounds: Bounds, models: Iterable[ServedModel]) -> Estimate:
    """`models`: those that may answer."""
    limits = [served.max_audio_seconds for served in models]
    most_ms = facts.most_audio_ms
    if limits and None not in limits:
        most_ms = min(most_ms, 1000 * max(limit for limit in limits if limit is not None))
        if not facts.is_length_estimated:  # what it is billed by, if the model takes it after all
            most_ms = max(most_ms, facts.audio_ms)
    seconds = -(-most_ms // 1000)
    pictures = facts.pictures * bounds.image
    likely = min(-(-facts.text_bytes // CHARACTERS_PER_TOKEN) + pictures, MAX_ESTIMATE)
    most_prompt = facts.text_bytes + pictures + AUDIO_TOKENS_PER_SECOND * seconds + MARGIN
    most_output = (
        TEXT_TOKENS_PER_SECOND * seconds
        + SPEECH_TOKENS_PER_CHARACTER * facts.characters
        + IMAGE_OUTPUT_TOKENS * facts.images
        + MARGIN
    )
    units = Units(most_ms, facts.characters, facts.images)
    return Estimate(likely, 0, likely, most_prompt, most_prompt, most_output, units=units)


def units_at_begin(facts: MediaFacts, reserved: Estimate) -> tuple[Units, UsageSource]:
    """What is billed unless the engine says more: as sent. A length that is estimated is no longer than what is held,
    for which the model has a bound."""
    most = facts.audio_ms if reserved.units is None else reserved.units.audio_ms
    units = Units(min(facts.audio_ms, most), facts.characters, facts.images)
    return units, "estimated" if facts.is_length_estimated else "counted"


def likely_usage(facts: MediaFacts) -> Usage:
    """The tokens of an answer whose engine has not counted them."""
    seconds = -(-facts.audio_ms // 1000)
    given = -(-facts.text_bytes // CHARACTERS_PER_TOKEN) + LIKELY_AUDIO_TOKENS * seconds
    made = LIKELY_TEXT_TOKENS * seconds + LIKELY_SPEECH_TOKENS * facts.characters + LIKELY_IMAGE_TOKENS * facts.images
    return Usage(given, 0, made, 0)
