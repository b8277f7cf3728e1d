"""`usage` and the other fields of an answer that a record needs.

Engines differ in what they omit, and some report nonsense: a count that is not a non-negative integer is ignored.
"""

from typing import Any

import msgspec

MAX_COUNT = 2**31 - 1
"""No answer has more tokens: larger counts are ignored."""


class Usage(msgspec.Struct, frozen=True, gc=False):
    """Token counts of one answer. `cached` is part of `input`, `reasoning` of `output`."""

    input: int
    cached: int
    output: int
    reasoning: int


class Counts(msgspec.Struct, frozen=True, gc=False):
    """A `usage` object as received, not validated."""

    prompt_tokens: Any = msgspec.UNSET
    completion_tokens: Any = msgspec.UNSET
    prompt_tokens_details: Any = None
    completion_tokens_details: Any = None
    input_tokens: Any = None
    output_tokens: Any = 0
    input_tokens_details: Any = None
    output_tokens_details: Any = None


class Choice(msgspec.Struct, frozen=True, gc=False):
    finish_reason: str | None = None


class ParsedAnswer(msgspec.Struct, frozen=True, gc=False):
    """The fields read from a complete answer. Others are skipped."""

    id: str | None = None
    usage: Counts | None = None
    choices: list[Choice] | None = None
    error: Any = None
    object: Any = None  # not `object`: inside the class, that is the field above its own annotation


_decode_answer = msgspec.json.Decoder(ParsedAnswer).decode


class _UsageOnly(msgspec.Struct, frozen=True):
    """An answer with invalid other fields. Its usage counts nevertheless."""

    usage: Any = None
    error: Any = None
    object: Any = None


def parse_answer(body: bytes) -> ParsedAnswer | None:
    """None if the body is not a JSON object."""
    try:
        try:
            return _decode_answer(body)
        except msgspec.ValidationError:
            odd = msgspec.json.decode(body, type=_UsageOnly)
            usage = msgspec.convert(odd.usage, Counts) if isinstance(odd.usage, dict) else None
            return ParsedAnswer(usage=usage, error=odd.error, object=odd.object)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def parse_usage(value: object) -> Usage | None:
    """Read a `usage` object. None if it is absent or its counts are invalid."""
    if isinstance(value, dict):
        value = msgspec.convert(value, Counts)
    if not isinstance(value, Counts):
        return None
    prompt = value.input_tokens if value.prompt_tokens is msgspec.UNSET else value.prompt_tokens
    output = value.output_tokens if value.completion_tokens is msgspec.UNSET else value.completion_tokens
    if type(prompt) is not int or type(output) is not int:  # True is an int, and no count
        return None
    if not 0 <= prompt <= MAX_COUNT or not 0 <= output <= MAX_COUNT:
        return None
    of_prompt = value.prompt_tokens_details or value.input_tokens_details
    of_output = value.completion_tokens_details or value.output_tokens_details
    cached = _detail(of_prompt, "cached_tokens", prompt) if of_prompt else 0
    reasoning = _detail(of_output, "reasoning_tokens", output) if of_output else 0
    return Usage(prompt, cached, output, reasoning)


def _detail(details: object, field: str, whole: int) -> int:
    count = details.get(field) if isinstance(details, dict) else None
    return min(count, whole) if type(count) is int and 0 < count <= MAX_COUNT else 0
