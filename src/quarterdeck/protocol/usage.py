"""`usage` and the few other fields of an answer that a record needs.

Engines differ in what they leave out and some lie; a count that is no non-negative integer counts as absent.
"""

from typing import Any

import msgspec

MAX_COUNT = 2**31 - 1
"""No answer has more tokens; a larger count is a lie."""


class Usage(msgspec.Struct, frozen=True):
    """Tokens of one answer. `cached` is part of `input`, `reasoning` of `output`."""

    input: int
    cached: int
    output: int
    reasoning: int


class Choice(msgspec.Struct, frozen=True):
    finish_reason: str | None = None


class Answer(msgspec.Struct, frozen=True):
    """What is read of a whole answer; all other members are skipped over."""

    id: str | None = None
    usage: dict[str, Any] | None = None
    choices: list[Choice] | None = None
    error: Any = None
    object: Any = None  # not `object`: inside the class, that is the field above its own annotation


_answers = msgspec.json.Decoder(Answer)


class _Counted(msgspec.Struct, frozen=True):
    """An answer whose other members are not as they should be: what it used was used all the same."""

    usage: Any = None
    error: Any = None
    object: Any = None


def decode_answer(body: bytes) -> Answer | None:
    """None where the body is not the JSON of an answer."""
    try:
        try:
            return _answers.decode(body)
        except msgspec.ValidationError:
            odd = msgspec.json.decode(body, type=_Counted)
            usage = odd.usage if isinstance(odd.usage, dict) else None
            return Answer(usage=usage, error=odd.error, object=odd.object)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def usage_of(value: object) -> Usage | None:
    """Read a `usage` object. None where it is absent, or is not one an engine in its right mind would send."""
    if not isinstance(value, dict):
        return None
    prompt = value.get("prompt_tokens", value.get("input_tokens"))
    output = value.get("completion_tokens", value.get("output_tokens", 0))
    if type(prompt) is not int or type(output) is not int:  # True is an int, and no count
        return None
    if not 0 <= prompt <= MAX_COUNT or not 0 <= output <= MAX_COUNT:
        return None
    of_prompt = value.get("prompt_tokens_details") or value.get("input_tokens_details")
    of_output = value.get("completion_tokens_details") or value.get("output_tokens_details")
    cached = _detail(of_prompt, "cached_tokens") if of_prompt else 0
    reasoning = _detail(of_output, "reasoning_tokens") if of_output else 0
    return Usage(prompt, min(cached, prompt), output, min(reasoning, output))


def _detail(details: object, field: str) -> int:
    count = details.get(field) if isinstance(details, dict) else None
    return count if type(count) is int and 0 <= count <= MAX_COUNT else 0
