"""Whether an answer that broke off can be gone on with elsewhere, and how that is asked for.

The engine gets the prompt and the text so far and goes on from there: in a chat by `continue_final_message`, in a
completion by a longer prompt. That is sound only where nothing else shapes the answer than its text: what counts or
constrains tokens since the answer's beginning (tools, a schema, penalties, log-probabilities, …) would begin anew.
Decisions are pure; only `continue_at` asks an endpoint.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from quarterdeck.errors import APIError
from quarterdeck.inference.call import Operation
from quarterdeck.inference.endpoints.sources import Endpoint
from quarterdeck.inference.engine.client import EngineClient, EngineStream
from quarterdeck.inference.metering.token_counting import PROMPT_FIELDS
from quarterdeck.protocol import requests
from quarterdeck.protocol.requests import AnyRequest, ChatCompletion, Completion, Generation

COUNT_SECONDS = 2.0
"""For counting what was said so far. The caller waits meanwhile; past it, a guess must do."""
COMPLETIONS_DEFAULT = 16
"""What an engine takes for a completion's `max_tokens` where none is given."""

SOUND = frozenset(
    {
        *("model", "messages", "prompt", "stream", "stream_options", "n", "max_tokens"),
        *("max_completion_tokens", "min_tokens", "temperature", "top_p", "top_k", "min_p", "seed", "stop"),
        *("stop_token_ids", "ignore_eos", "logit_bias", "user", "safety_identifier", "metadata", "store"),
        *("service_tier", "priority", "prompt_cache_key", "cache_salt", "request_id", "chat_template_kwargs"),
        *("reasoning_effort", "verbosity", "tool_choice", "parallel_tool_calls"),
    }
)
"""Members of a body that mean the same when the text so far stands in the prompt. `tools` is not one of them, so the
words about tools say nothing; a reasoning model's thoughts can't be put back, and its text is not plain once it has
thought. Any other member must be as good as absent."""
EMPTY = frozenset({b"null", b"false", b"[]", b"{}", b'""'})
_ZERO = frozenset({b"null", b"0", b"0.0"})
_TRUE = frozenset({b"null", b"true"})
NEUTRAL = {
    "frequency_penalty": _ZERO,
    "presence_penalty": _ZERO,
    "top_logprobs": _ZERO,
    "repetition_penalty": frozenset({b"null", b"1", b"1.0"}),
    "response_format": frozenset({b"null", b'{"type":"text"}', b'{"type": "text"}'}),
    "best_of": frozenset({b"null", b"1"}),
    "add_generation_prompt": _TRUE,
    "skip_special_tokens": _TRUE,
    "spaces_between_special_tokens": _TRUE,
    "include_reasoning": _TRUE,
}
"""What is as good as absent, where that is not EMPTY."""


@dataclass(frozen=True, slots=True)
class Lost:
    """A stream that broke off."""

    error: APIError
    text: str
    """What the caller has of it."""
    tokens: int
    """About as many tokens as that is."""


@dataclass(frozen=True, slots=True)
class Resumed:
    """Another endpoint's stream, which goes on."""

    stream: EngineStream
    tokens: int
    """How many tokens of its prompt are the answer so far."""
    repeated: str
    """The end of the text so far that it was not given, and will say again."""


@dataclass(frozen=True, slots=True)
class Continuation:
    """How an endpoint is asked to go on."""

    body: bytes
    tokens: int
    repeated: str


def is_resumable(operation: Operation, members: Mapping[str, msgspec.Raw], request: AnyRequest, text: str) -> bool:
    """Whether the answer, broken off after `text`, can be gone on with so that nobody sees the seam."""
    if not isinstance(request, ChatCompletion | Completion) or operation not in (Operation.CHAT, Operation.COMPLETIONS):
        return False
    if isinstance(request, Completion) and not isinstance(request.prompt, str):
        return False
    if (request.n or 1) != 1:
        return False
    if any(name not in SOUND and bytes(raw) not in NEUTRAL.get(name, EMPTY) for name, raw in members.items()):
        return False
    stops = [request.stop] if isinstance(request.stop, str) else request.stop or []
    return not any(_overlaps(text, stop) for stop in stops)


def _overlaps(text: str, stop: str) -> bool:
    """Whether a stop string may have begun in the text. The new endpoint would not see it across the seam."""
    return any(text.endswith(stop[:length]) for length in range(1, len(stop)))


def continued(members: Mapping[str, msgspec.Raw], request: Generation, text: str, tokens: int) -> bytes | None:
    """The body that asks for the rest, when `text` is `tokens` tokens. None: no token is left to be asked for."""
    changed: dict[str, object] = dict(_prompt_with(members, text))
    limits = {name: getattr(request, name, None) for name in ("max_tokens", "max_completion_tokens")}
    if isinstance(request, Completion) and request.max_tokens is None:
        limits["max_tokens"] = COMPLETIONS_DEFAULT
    for name, limit in limits.items():
        if limit is not None:
            if limit <= tokens:
                return None
            changed[name] = limit - tokens
    if "min_tokens" in members and isinstance(least := msgspec.json.decode(members["min_tokens"]), int):
        changed["min_tokens"] = max(0, least - tokens)
    return requests.with_members(dict(members), changed)


def _prompt_with(members: Mapping[str, msgspec.Raw], text: str) -> dict[str, object]:
    """The members that make the prompt, with the text so far at its end."""
    if not text:
        return {}
    if "messages" not in members:
        return {"prompt": msgspec.json.decode(members["prompt"], type=str) + text}
    messages = msgspec.json.decode(members["messages"], type=list[msgspec.Raw])
    said = msgspec.Raw(msgspec.json.encode({"role": "assistant", "content": text}))
    return {"messages": [*messages, said], "continue_final_message": True, "add_generation_prompt": False}


async def continue_at(
    engines: EngineClient,
    endpoint: Endpoint,
    model: str,
    members: Mapping[str, msgspec.Raw],
    request: Generation,
    lost: Lost,
) -> Continuation | None:
    """How this endpoint is asked: its own tokenizer says how many tokens the text is, and whether its chat template
    cuts white space off its end (Llama's does). None: no token is left to be asked for."""
    if not lost.text.strip():  # some templates lose such a message; it is as good to begin anew
        body = continued(members, request, "", 0)
        return Continuation(body, 0, lost.text) if body is not None else None
    prompts = ["", lost.text]
    if lost.text[-1].isspace() and "messages" in members:
        prompts.append(lost.text.rstrip())
    try:
        async with asyncio.timeout(COUNT_SECONDS):
            counted = await asyncio.gather(
                *[engines.tokenize(endpoint, {"model": model, **_shaping(members, text)}) for text in prompts]
            )
    except TimeoutError:
        counted = [None]
    tokens, repeated = lost.tokens, ""
    if None not in counted:
        before, after, *trimmed = [found for found in counted if found is not None]
        tokens = max(0, len(after) - len(before))
        if trimmed and trimmed[0] == after:
            repeated = lost.text[len(lost.text.rstrip()) :]
    body = continued(members, request, lost.text, tokens)
    return Continuation(body, tokens, repeated) if body is not None else None


def _shaping(members: Mapping[str, msgspec.Raw], text: str) -> dict[str, object]:
    """What `/tokenize` is asked for the prompt with the text so far."""
    fields = ("prompt",) if "messages" not in members else PROMPT_FIELDS
    return {name: members[name] for name in fields if name in members} | _prompt_with(members, text)
