"""Whether an interrupted answer can be resumed on another endpoint, and the request that does it.

The endpoint receives the prompt and the text so far and continues from there: in a chat with `continue_final_message`,
in a completion with a longer prompt. That is correct only if nothing but its text shapes the rest of the answer. What
counts or constrains tokens from the start of the answer (tools, a schema, penalties, log-probabilities, …) would start
over. All functions but `plan_continuation` are pure.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from quarterdeck.errors import APIError
from quarterdeck.inference.call import Operation
from quarterdeck.inference.endpoints.endpoint import Endpoint
from quarterdeck.inference.engine.client import EngineClient
from quarterdeck.inference.engine.stream import EngineStream
from quarterdeck.inference.metering.token_counting import PROMPT_FIELDS
from quarterdeck.protocol import requests
from quarterdeck.protocol.requests import (
    COMPLETION_MAX_TOKENS,
    AnyRequest,
    ChatCompletionRequest,
    CompletionRequest,
    GenerationRequest,
)

COUNT_SECONDS = 2.0
"""Limit for counting the tokens of the text so far. The client waits for it; past it they are estimated."""

SOUND = frozenset(
    {
        *("model", "messages", "prompt", "stream", "stream_options", "n", "max_tokens"),
        *("max_completion_tokens", "min_tokens", "temperature", "top_p", "top_k", "min_p", "seed", "stop"),
        *("stop_token_ids", "ignore_eos", "logit_bias", "user", "safety_identifier", "metadata", "store"),
        *("service_tier", "priority", "prompt_cache_key", "cache_salt", "request_id", "chat_template_kwargs"),
        *("reasoning_effort", "verbosity", "tool_choice", "parallel_tool_calls"),
    }
)
"""Request fields that keep their meaning when the text so far is part of the prompt. Any other field must be empty or
neutral. `tools` must be, which makes the other tool fields harmless. Reasoning can't be put back into the prompt, but
once there is any, the transcript is not plain text and the answer is not resumed."""
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
"""Values equivalent to leaving the field out, for fields where that is not EMPTY."""


@dataclass(frozen=True, slots=True)
class LostStream:
    """An engine's stream that ended before its answer was complete."""

    error: APIError
    text: str
    """The text that the client has received."""
    tokens: int
    """Its tokens, estimated."""


@dataclass(frozen=True, slots=True)
class ResumedStream:
    """Another endpoint's stream that continues the answer."""

    stream: EngineStream
    tokens: int
    """How many tokens of its prompt are the answer so far."""
    repeated: str
    """The end of the text so far that the prompt left out, and that the stream repeats."""


@dataclass(frozen=True, slots=True)
class Continuation:
    """The request that continues an answer. `tokens` and `repeated` as in `ResumedStream`."""

    body: bytes
    tokens: int
    repeated: str


def is_resumable(operation: Operation, members: Mapping[str, msgspec.Raw], request: AnyRequest, text: str) -> bool:
    """Whether an answer that was interrupted after `text` can be continued without a visible difference."""
    if not isinstance(request, ChatCompletionRequest | CompletionRequest) or operation not in (
        Operation.CHAT,
        Operation.COMPLETIONS,
    ):
        return False
    if isinstance(request, CompletionRequest) and not isinstance(request.prompt, str):
        return False
    if (request.n or 1) != 1:
        return False
    if any(name not in SOUND and bytes(raw) not in NEUTRAL.get(name, EMPTY) for name, raw in members.items()):
        return False
    stops = [request.stop] if isinstance(request.stop, str) else request.stop or []
    return not any(_overlaps(text, stop) for stop in stops)


def _overlaps(text: str, stop: str) -> bool:
    """Whether the text ends with the start of a stop string. The new endpoint would not detect it."""
    return any(text.endswith(stop[:length]) for length in range(1, len(stop)))


def continuation_body(
    members: Mapping[str, msgspec.Raw], request: GenerationRequest, text: str, tokens: int
) -> bytes | None:
    """The request body for the rest of the answer after `text`, which has `tokens` tokens. None: no tokens are left."""
    changed: dict[str, object] = dict(_prompt_with(members, text))
    # From the members and not the request: the key's limit, or what its budget pays for, was written into them.
    limits: dict[str, int | None] = {
        name: msgspec.json.decode(members[name], type=int | None)
        for name in ("max_tokens", "max_completion_tokens")
        if name in members
    }
    if isinstance(request, CompletionRequest) and limits.get("max_tokens") is None:
        limits["max_tokens"] = COMPLETION_MAX_TOKENS
    for name, limit in limits.items():
        if limit is not None:
            if limit <= tokens:
                return None
            changed[name] = limit - tokens
    if "min_tokens" in members and isinstance(least := msgspec.json.decode(members["min_tokens"]), int):
        changed["min_tokens"] = max(0, least - tokens)
    return requests.with_members(dict(members), changed)


def _prompt_with(members: Mapping[str, msgspec.Raw], text: str) -> dict[str, object]:
    """The prompt's fields, with the text so far at its end."""
    if not text:
        return {}
    if "messages" not in members:
        return {"prompt": msgspec.json.decode(members["prompt"], type=str) + text}
    messages = msgspec.json.decode(members["messages"], type=list[msgspec.Raw])
    partial = msgspec.Raw(msgspec.json.encode({"role": "assistant", "content": text}))
    return {"messages": [*messages, partial], "continue_final_message": True, "add_generation_prompt": False}


async def plan_continuation(
    engines: EngineClient,
    endpoint: Endpoint,
    model: str,
    members: Mapping[str, msgspec.Raw],
    request: GenerationRequest,
    lost: LostStream,
) -> Continuation | None:
    """The request for this endpoint. Its tokenizer counts the text's tokens and shows whether its chat template removes
    trailing white space (Llama's does). None: no tokens are left."""
    if not lost.text.strip():  # some templates drop such a message; starting over is equivalent
        body = continuation_body(members, request, "", 0)
        return Continuation(body, 0, lost.text) if body is not None else None
    prompts = ["", lost.text]
    if lost.text[-1].isspace() and "messages" in members:
        prompts.append(lost.text.rstrip())
    try:
        async with asyncio.timeout(COUNT_SECONDS):
            counted = await asyncio.gather(
                *[engines.tokenize(endpoint, {"model": model, **_prompt_fields(members, text)}) for text in prompts]
            )
    except TimeoutError:
        counted = [None]
    tokens, repeated = lost.tokens, ""
    if None not in counted:
        before, after, *trimmed = [found for found in counted if found is not None]
        tokens = max(0, len(after) - len(before))
        if trimmed and trimmed[0] == after:
            repeated = lost.text[len(lost.text.rstrip()) :]
    body = continuation_body(members, request, lost.text, tokens)
    return Continuation(body, tokens, repeated) if body is not None else None


def _prompt_fields(members: Mapping[str, msgspec.Raw], text: str) -> dict[str, object]:
    """The `/tokenize` request fields for the prompt with the text so far."""
    fields = ("prompt",) if "messages" not in members else PROMPT_FIELDS
    return {name: members[name] for name in fields if name in members} | _prompt_with(members, text)
