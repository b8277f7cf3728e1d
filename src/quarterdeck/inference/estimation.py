"""What is reserved for a request before it runs: tokens for limits, and the most it can cost for budgets. Pure.

Limits reserve the likely tokens, because what a request does not use is returned at its end and a refusal that was not
needed costs a client more. Budgets hold an upper bound, because money that is spent does not come back:

* A prompt has at most one token for each byte of its text: byte-level tokenizers need no more. Token ids are counted.
* Pictures, audio and files are no text: each counts a bounded number of tokens, however long its base64 is.
* An answer has at most `max_tokens` for each choice, or what the model's context leaves.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from quarterdeck.accounting.pricing import Rates, estimated_cost
from quarterdeck.accounting.units import Units
from quarterdeck.inference.bounds import IMAGE_TOKENS, UNKNOWN, Bounds
from quarterdeck.inference.request import InferenceRequest
from quarterdeck.protocol.requests import (
    COMPLETION_MAX_TOKENS,
    ChatCompletionRequest,
    CompletionRequest,
    DetokenizeRequest,
    EmbeddingRequest,
    GenerationRequest,
    ScoreRequest,
    TokenizeRequest,
)

CHARACTERS_PER_TOKEN = 4
"""The usual rule of thumb, for texts that can't be tokenized."""
DEFAULT_OUTPUT_TOKENS = 256
"""Output reserved in limits for a request without `max_tokens`; settled at what it used."""
MAX_ESTIMATE = 10**9
"""Tokens that limits reserve. Far above any answer; Redis' Lua counts in doubles, which are exact below 2⁵³."""
TEMPLATE_TOKENS = 64
"""What a chat template adds to the messages: its own system prompt, and the head of the answer."""
TOOLS_TOKENS = 512
"""What it adds where the request has tools: how to call them."""
INDENT = 4
"""Spaces by which chat templates indent JSON, at most."""
FLAT = 32
"""Objects and arrays of tools whose indentation is within TOOLS_TOKENS: tokenizers join spaces."""
MAX_FORMATTED = 32 * 1024
MAX_DEPTH = 1000
"""Deeper JSON is refused by the decoder."""
BYTES_PER_AUDIO_TOKEN = 40
"""Base64 bytes of audio at 8 kbit/s, the lowest common rate, for each of the 32 tokens that models make of a second."""
MEDIA_SETTINGS = frozenset(("mm_processor_kwargs", "media_io_kwargs"))
"""vLLM's members that say how media are read."""
MAX_AUDIO_TOKENS = 65_536
MAX_BYTES_PER_TOKEN = 16
"""Of a whole prompt: longer tokens exist, but no text consists of them."""
COUNTED_MARGIN = 16
"""Tokens between an engine's count of a prompt and what it reports in the usage: the head of the answer."""
MAX_FILE_TOKENS = 131_072
"""Of a document or a video: the context of most models that take them."""

SAMPLED = 256
"""Bytes of a long text that are looked at for its likely tokens: all of a megabyte would take two milliseconds."""

SCORED = ("text_1", "queries", "data_1"), ("text_2", "documents", "data_2")
"""The members of a score request with its two sides."""

_PLAIN = bytes(byte for byte in range(128) if not 48 <= byte <= 57)
_NOT_STRUCTURE = bytes(set(range(128)) - set(b'{}[],:"\\ \t\r\n'))
_DIGITS = b"0123456789"


class Estimate(msgspec.Struct, frozen=True, gc=False):
    """Tokens of a request, before it runs."""

    prompt: int
    """Likely. For limits and the endpoints' load, as are the two below."""
    output: int
    total: int
    """Prompt and output."""
    most_prompt: int = 0
    """At most. For budgets, as are the two below."""
    any_prompt: int = 0
    """At most, whichever tokenizer reads it. More than `most_prompt` where one model's has counted it."""
    most_output: int = 0
    """Of all choices, if `limit` is kept."""
    choices: int = 1
    is_open: bool = False
    """Neither the request nor the key limits its answer."""
    engine_seconds: float = 0.0
    """Its share of an engine's time, at most: until the request times out. 0: no model of its route bills time."""
    units: Units | None = None
    """At most, for budgets. None: of text."""
    limit: int | None = None
    """The output limit of one choice that neither the request nor the key sets: the endpoint must be sent it if the
    answer may not cost more than is held. None: there is one already, or the model's context is it."""


def estimate(request: InferenceRequest, bounds: Bounds = UNKNOWN, most: int | None = None) -> Estimate:
    """`most`: the key's own `max_tokens`."""
    parsed = request.parsed
    prompts, likely, bound = _prompt(request, bounds)
    context, most_of_all = bounds.context, MAX_ESTIMATE
    if context is not None:
        most_of_all = min(prompts * context, MAX_ESTIMATE)
    if bound > most_of_all:  # comparisons are a fifth of a call of min, for each request
        bound = most_of_all
    if likely > bound:
        likely = bound
    if isinstance(parsed, TokenizeRequest | DetokenizeRequest):
        return Estimate(likely, 0, likely)  # no model runs, and no tokens are billed
    if not isinstance(parsed, GenerationRequest):
        return Estimate(likely, 0, likely, bound, bound)
    given, limit = _output_limit(parsed) or most, None
    longest, choices = given, parsed.n or 1
    is_completion = isinstance(parsed, CompletionRequest)
    if isinstance(parsed, CompletionRequest):
        choices = prompts * max(choices, parsed.best_of or 1)
        if longest is not None and parsed.max_tokens is None:
            longest = min(longest, COMPLETION_MAX_TOKENS)
    if longest is None:
        longest = limit = COMPLETION_MAX_TOKENS if is_completion else bounds.output
    if context is not None:
        if limit is not None and limit >= context:
            limit = None
        longest = min(longest, context)
    if limit is not None and not bounds.is_sent and not is_completion:
        limit = None
    most_output = longest * choices
    output = most_output if given is not None else min(longest, DEFAULT_OUTPUT_TOKENS) * choices
    if output > MAX_ESTIMATE - likely:
        output = MAX_ESTIMATE - likely
    is_open = given is None and not is_completion
    return Estimate(likely, output, likely + output, bound, bound, most_output, choices, is_open, limit=limit)


def most_cost(reserved: Estimate, rates: Rates) -> int:
    """What the request can cost at most at these rates, in 10⁻⁶ $."""
    return estimated_cost(
        reserved.most_prompt,
        reserved.most_output,
        rates,
        engine_seconds=reserved.engine_seconds,
        units=reserved.units,
    )


def fit(reserved: Estimate, money: int, rates: Rates) -> Estimate | None:
    """The estimate with a shorter answer, so that it costs at most `money`, in 10⁻⁶ $. None: it can't be shortened to
    an answer of a usual length, because the request sets its length, or too little is left."""
    if most_cost(reserved, rates) <= money:
        return reserved
    if not reserved.is_open or not rates.output:
        return None
    left = money - estimated_cost(reserved.most_prompt, 0, rates, engine_seconds=reserved.engine_seconds)
    # In whole millionths: each side is rounded up, so the sum is within `money`.
    longest = rates.tokens_for(left) // reserved.choices
    if longest < DEFAULT_OUTPUT_TOKENS:
        return None
    return _with_limit(reserved, longest)


def fits_at_best(reserved: Estimate, money: int, rates: Rates) -> bool:
    """Whether the request could cost `money` or less once its prompt is counted."""
    output = reserved.most_output
    if reserved.is_open:
        output = min(output, DEFAULT_OUTPUT_TOKENS * reserved.choices)
    prompt = reserved.most_prompt // MAX_BYTES_PER_TOKEN
    return estimated_cost(prompt, output, rates, engine_seconds=reserved.engine_seconds) <= money


def with_prompt(reserved: Estimate, tokens: int) -> Estimate:
    """The estimate of a request whose prompt was counted."""
    return msgspec.structs.replace(reserved, most_prompt=min(reserved.most_prompt, tokens + COUNTED_MARGIN))


def for_any_tokenizer(reserved: Estimate) -> Estimate:
    """The estimate for another model than the one that counted the prompt."""
    return msgspec.structs.replace(reserved, most_prompt=reserved.any_prompt)


def _with_limit(reserved: Estimate, longest: int) -> Estimate:
    most_output = longest * reserved.choices
    output = min(reserved.output, most_output)
    return msgspec.structs.replace(
        reserved, output=output, total=reserved.prompt + output, most_output=most_output, limit=longest
    )


def estimate_tokens(characters: int) -> int:
    """Estimated tokens of a generated text of this many characters."""
    return -(-characters // CHARACTERS_PER_TOKEN)


def likely_tokens(text: bytes) -> int:
    """Likely tokens of a text: many tokenizers have one for each digit, one or two for a CJK character, and one for
    four letters. Of a long text, bytes at equal distances say how many of each it has."""
    size = len(text)
    sample = text if size < 2 * SAMPLED else text[:: size // SAMPLED | 1]  # odd: tables have even columns
    rest = sample.translate(None, _PLAIN)
    dense = len(rest) * size // len(sample) if rest else 0
    likely = -(-(size - dense) // CHARACTERS_PER_TOKEN) + dense
    if not rest.isascii():
        likely -= len(rest.translate(None, _DIGITS)) * size // len(sample) // 2
    return likely


def _output_limit(parsed: GenerationRequest) -> int | None:
    """The request's own limit; the larger where it has both, as endpoints differ in which they read."""
    if isinstance(parsed, ChatCompletionRequest) and parsed.max_completion_tokens:
        return max(parsed.max_completion_tokens, parsed.max_tokens or 0)
    return parsed.max_tokens or None


def _prompt(request: InferenceRequest, bounds: Bounds) -> tuple[int, int, int]:
    """The number of prompts, their likely tokens and the most they can have."""
    parsed, size = request.parsed, len(request.body)
    if isinstance(parsed, ChatCompletionRequest):
        added = TEMPLATE_TOKENS
        if parsed.tools:
            added += TOOLS_TOKENS + _indentation(request.members["tools"])
        if request.has_parts:
            media = [each for message in parsed.messages if type(message.content) is list for each in message.content]
            # With these members a client can have a picture read at any size.
            is_scaled = MEDIA_SETTINGS.isdisjoint(request.members)
            length, tokens = media_of(media, bounds.image if is_scaled else MAX_FILE_TOKENS)
            if length:
                text = max(size - length, 0)
                return 1, -(-text // CHARACTERS_PER_TOKEN) + tokens, text + tokens + added
            return 1, likely_tokens(request.body) + tokens, size + tokens + added
        return 1, likely_tokens(request.body), size + added
    if isinstance(parsed, CompletionRequest | EmbeddingRequest):
        given = parsed.prompt if isinstance(parsed, CompletionRequest) else parsed.input
        if isinstance(given, list) and given:
            prompts = 1 if type(given[0]) is int else len(given)
            if (ids := _token_ids(given)) is not None:
                suffix = len(request.members["suffix"]) if "suffix" in request.members else 0
                return prompts, ids + suffix, ids + suffix + prompts
            return prompts, likely_tokens(request.body), size + prompts
        return 1, likely_tokens(request.body), size + 1
    if isinstance(parsed, ScoreRequest):
        return _scored(request, bounds)
    return 1, likely_tokens(request.body), size


def _indentation(tools: msgspec.Raw) -> int:
    """Bytes that templates which print the tools in lines (Llama's) add to them. They grow as the square of a schema's
    depth: 3 KB become 1 MB. Little for few objects, which is not worth a look; at most, for large ones, which are not
    worth the memory."""
    compact = bytes(tools)
    opened = compact.count(b"{") + compact.count(b"[")
    if opened <= FLAT:
        return 0
    if len(compact) <= MAX_FORMATTED:
        return max(0, len(msgspec.json.format(compact, indent=INDENT)) - len(compact))
    lines = 2 * opened + compact.count(b",")
    return lines * INDENT * min(opened, MAX_DEPTH)


def _token_ids(given: list[Any]) -> int | None:
    """The length of a prompt of token ids, or of several. None: some of it is text."""
    if type(given[0]) is int:
        return len(given) if all(type(each) is int for each in given) else None
    if all(type(each) is list for each in given):
        return sum(map(len, given)) if all(type(id) is int for each in given for id in each) else None
    return None


def _scored(request: InferenceRequest, bounds: Bounds) -> tuple[int, int, int]:
    """Each query is read with each of its documents."""
    sides = [_texts(request.members, names) for names in SCORED]
    pairs = max(len(sides[0]), len(sides[1]), 1)
    likely = bound = 0
    for side in sides:
        length, tokens = media_of([part for each in side for part in _parts(each)], bounds.image)
        size = max(sum(len(msgspec.json.encode(each)) for each in side) - length, 0)
        times = pairs if len(side) == 1 else 1
        likely += times * (-(-size // CHARACTERS_PER_TOKEN) + tokens)
        bound += times * (size + tokens)
    template = len(request.body) if not bound else 0
    return pairs, likely + template, bound + template + TEMPLATE_TOKENS * pairs


def _texts(members: Mapping[str, msgspec.Raw], names: Sequence[str]) -> list[Any]:
    for name in names:
        if name in members:
            given = msgspec.json.decode(members[name])
            return given if isinstance(given, list) else [given]
    return []


def _parts(given: object) -> list[dict[str, Any]]:
    content = given.get("content") if isinstance(given, dict) else None
    return [part for part in content if isinstance(part, dict)] if isinstance(content, list) else []


def structure_bytes(body: bytes) -> int:
    """How many bytes of a body are JSON's own or not ASCII, of which media have none: known before it is decoded, which
    takes up to a hundred times as long for structure as for text."""
    return len(body.translate(None, _NOT_STRUCTURE))


def text_bytes(request: InferenceRequest) -> int:
    """The size of a request without its pictures, audio and files."""
    parsed, size = request.parsed, len(request.body)
    if isinstance(parsed, ChatCompletionRequest):
        size -= media_of([each for message in parsed.messages for each in message.content or () if type(each) is dict])[
            0
        ]
    return size


def media_of(parts: Sequence[Mapping[str, Any]], image_tokens: int = IMAGE_TOKENS) -> tuple[int, int]:
    """The bytes that media take in these content parts, and the tokens they count for."""
    length = tokens = 0
    for part in parts:
        kind = part.get("type")
        if (kind == "text" and len(part) == 2) or (kind is None and len(part) == 1 and "text" in part):
            continue  # nothing else: vLLM reads the picture of a part without a type that has a text as well
        size = 0
        is_medium = False
        for name, value in part.items():
            if name in ("type", "text"):
                continue
            for field, leaf in _leaves(name, value):
                if type(leaf) is not str:
                    continue
                if leaf[:5].lower() == "data:" or field in ("data", "file_data"):
                    size += len(leaf)
                    is_medium = True
                elif field == "url" or field.endswith("_url") or field in ("file_id", "uuid"):
                    is_medium = True
        length += size
        if is_medium:
            tokens += _medium_tokens(str(kind), size, image_tokens)
    return length, tokens


def _leaves(name: str, value: object) -> Iterator[tuple[str, object]]:
    if isinstance(value, dict):
        yield from value.items()
    else:
        yield name, value


def _medium_tokens(kind: str, size: int, image_tokens: int) -> int:
    if "image" in kind:
        return image_tokens
    if "audio" in kind:
        return min(max(size // BYTES_PER_AUDIO_TOKEN, image_tokens), MAX_AUDIO_TOKENS)
    return min(max(size * 3 // 4, image_tokens), MAX_FILE_TOKENS)  # a text in base64
