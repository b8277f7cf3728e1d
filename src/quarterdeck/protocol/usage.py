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


def added(one: Usage, other: Usage) -> Usage:
    """The usage of both together."""
    return Usage(
        one.input + other.input,
        one.cached + other.cached,
        one.output + other.output,
        one.reasoning + other.reasoning,
    )


class Counts(msgspec.Struct, frozen=True, gc=False):
    """A `usage` object as received, not validated: OpenAI's members, and those of other servers (`parse_usage`)."""

    prompt_tokens: Any = msgspec.UNSET
    completion_tokens: Any = msgspec.UNSET
    total_tokens: Any = None
    prompt_tokens_details: Any = None
    completion_tokens_details: Any = None
    input_tokens: Any = None
    output_tokens: Any = 0
    input_tokens_details: Any = None
    output_tokens_details: Any = None
    # DeepSeek
    prompt_cache_hit_tokens: Any = None
    # Anthropic, and gateways before it
    cache_read_input_tokens: Any = None
    cache_creation_input_tokens: Any = None
    # Moonshot, Together, Mistral
    cached_tokens: Any = None
    num_cached_tokens: Any = None
    # Perplexity, older xAI
    reasoning_tokens: Any = None


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
    """Read a `usage` object. None if it is absent, says 0 of everything, or its counts are invalid.

    Servers agree on the names of the two counts, not on what is in them; the total decides:

    * total = prompt + completion: both are complete (OpenAI, vLLM, DeepSeek, OpenRouter, Mistral, Groq)
    * total = prompt + completion + reasoning: the reasoning was generated as well (xAI)
    * a larger total, without a count of reasoning: the rest was generated, unseen (Gemini's thoughts)
    * total = prompt + completion + what was read from or written to the cache: the prompt was more (Anthropic)

    Without a total, more reasoning than completion can only be beside it.
    """
    if isinstance(value, dict):
        value = msgspec.convert(value, Counts)
    if not isinstance(value, Counts):
        return None
    prompt, output, total = value.prompt_tokens, value.completion_tokens, value.total_tokens
    is_whole = type(prompt) is type(output) is type(total) is int and prompt >= 0 and output >= 0
    if is_whole and 0 < total <= MAX_COUNT and total == prompt + output and value == Counts(prompt, output, total):
        return Usage(prompt, 0, output, 0)  # nothing else is stated: most answers
    prompt = value.input_tokens if value.prompt_tokens is msgspec.UNSET else value.prompt_tokens
    output = value.output_tokens if value.completion_tokens is msgspec.UNSET else value.completion_tokens
    if type(prompt) is not int or type(output) is not int:
        prompt, output = _whole(prompt), _whole(output)
    if prompt is None or output is None or not (prompt or output):
        return None  # nothing was counted: servers that don't count say 0
    if not 0 <= prompt <= MAX_COUNT or not 0 <= output <= MAX_COUNT:
        return None
    # Most members are absent in most answers, and this is read for each of them.
    cached = reasoning = written = 0
    if of_prompt := value.prompt_tokens_details or value.input_tokens_details:
        cached = _detail(of_prompt, "cached_tokens")
    hit, read = value.prompt_cache_hit_tokens, value.cache_read_input_tokens
    if not cached and (hit or read or value.cached_tokens or value.num_cached_tokens):
        cached = _first(hit, read, value.cached_tokens, value.num_cached_tokens)
    if of_output := value.completion_tokens_details or value.output_tokens_details:
        reasoning = _detail(of_output, "reasoning_tokens")
    if not reasoning and value.reasoning_tokens:
        reasoning = _count(value.reasoning_tokens)
    if value.cache_creation_input_tokens:
        written = _count(value.cache_creation_input_tokens)
    total = value.total_tokens
    if type(total) is not int:
        total = _whole(total)
    if total is not None and 0 <= total <= MAX_COUNT:
        if (beside := total - prompt - output) > 0:
            if read is not None and beside == cached + written:
                prompt = total - output
            else:
                output = total - prompt
    else:
        # Anthropic's own form has no total.
        is_beside = value.prompt_tokens is msgspec.UNSET or cached > prompt
        if read is not None and is_beside:
            prompt += cached + written
        if reasoning > output:
            output += reasoning
    return Usage(prompt, cached if cached < prompt else prompt, output, reasoning if reasoning < output else output)


def _whole(count: object) -> int | None:
    """Also of a float, as some servers write one. True is an int, and no count."""
    if type(count) is float and count.is_integer():
        return int(count)
    return count if type(count) is int else None


def _detail(details: object, field: str) -> int:
    return _count(details.get(field)) if isinstance(details, dict) else 0


def _first(*counts: object) -> int:
    return next((count for each in counts if (count := _count(each))), 0)


def _count(count: object) -> int:
    """0 for anything that is no count."""
    whole = _whole(count)
    return whole if whole is not None and 0 < whole <= MAX_COUNT else 0
