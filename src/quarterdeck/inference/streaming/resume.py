"""Whether an interrupted answer can be resumed on another endpoint, and the request that does it.

The endpoint receives the prompt and the text so far and continues from there: in a chat with `continue_final_message`,
in a completion with a longer prompt. That is correct only if nothing but its text shapes the rest of the answer. What
counts or constrains tokens from the start of the answer (tools, a schema, penalties, log-probabilities, …) would start
over. All functions but `plan_continuations` and `has_caught_up` are pure.
"""

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from quarterdeck.errors import APIError
from quarterdeck.inference.call import Operation
from quarterdeck.inference.endpoints.endpoint import Endpoint, Endpoints
from quarterdeck.inference.engine.client import EngineClient
from quarterdeck.inference.engine.stream import EngineStream
from quarterdeck.inference.metering.token_counting import PROMPT_FIELDS
from quarterdeck.inference.metering.transcript import Transcript
from quarterdeck.inference.routing.directory import Route
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
MAX_REPEATED = 200
"""Characters of the text so far that another endpoint may be made to repeat: some fifty tokens, in a second or two."""
MAX_ENDS = 3
"""Ends that are tried; each is a call of the tokenizer."""
_WORD_END = re.compile(r"(?<=\S)\s+(?=\S)")
_SIGN = re.compile(r"(?<=\w)[^\w\s](?=.)", re.DOTALL)

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


async def plan_continuations(
    engines: EngineClient,
    endpoint: Endpoint,
    model: str,
    members: Mapping[str, msgspec.Raw],
    request: GenerationRequest,
    lost: LostStream,
) -> list[Continuation]:
    """The requests for this endpoint, in the order in which to try them. Empty: no tokens are left.

    A text that is tokenized anew does not always give the tokens that the first engine had: two line breaks at its end
    are one token, and two tokens where a word follows. So the first request ends before the last words, at a boundary
    where the endpoint's tokenizer gives the same tokens whatever follows, and the stream repeats those words. If it
    says something else, the next request has the whole text. The tokenizer also counts the tokens of the text so far,
    and shows whether its chat template removes trailing white space (Llama's does).
    """
    text = lost.text
    if not text.strip():  # some templates drop such a message; starting over is equivalent
        return _continuations(members, request, text, [(0, 0)])
    ends = stable_ends(text)
    prompts = ["", text, *(text[:end] for end in ends if end)]
    has_space = text[-1].isspace() and "messages" in members
    if has_space:
        prompts.append(text.rstrip())
    try:
        async with asyncio.timeout(COUNT_SECONDS):
            counted = await asyncio.gather(
                *[engines.tokenize(endpoint, {"model": model, **_prompt_fields(members, each)}) for each in prompts]
            )
    except TimeoutError:
        counted = [None]
    found = [tokens for tokens in counted if tokens is not None]
    if len(found) < len(prompts):
        return _continuations(members, request, text, [(len(text), lost.tokens)])
    before, whole, *others = found
    shown = len(text.rstrip()) if has_space and others.pop() == whole else len(text)
    chosen = [(shown, max(0, len(whole) - len(before)))]
    shorter = dict(zip([end for end in ends if end], others, strict=True)) | {0: before}
    for end in ends:
        tokens = shorter[end]
        if tokens[: len(before)] == before and whole[: len(tokens)] == tokens:
            chosen.insert(0, (end, len(tokens) - len(before)))
            break
    return _continuations(members, request, text, chosen)


def stable_ends(text: str) -> list[int]:
    """Where a text may end so that its tokens stay the same when it goes on: before white space or a sign after a
    letter, where another word has begun since. The last first; 0 is the start of the answer, which is always stable."""
    start = max(0, len(text) - MAX_REPEATED)
    ends = [found.start() for found in _WORD_END.finditer(text, start) if found.start() > start]
    ends = ends[: -MAX_ENDS - 1 : -1]
    if not ends:
        ends = [found.start() for found in _SIGN.finditer(text, start) if found.start() > start][: -MAX_ENDS - 1 : -1]
    return [*ends, 0] if start == 0 else ends


def _continuations(
    members: Mapping[str, msgspec.Raw], request: GenerationRequest, text: str, ends: list[tuple[int, int]]
) -> list[Continuation]:
    """A request for each end of the text, given with its number of tokens."""
    found = []
    for end, tokens in ends:
        body = continuation_body(members, request, text[:end], tokens)
        if body is not None:
            found.append(Continuation(body, tokens, text[end:]))
    return found


async def has_caught_up(stream: EngineStream, repeated: str) -> bool:
    """Read the stream's first events until it has repeated this text; they are then its `first`. False: it says
    something else. Raises EngineError."""
    transcript, whole = Transcript(), stream.first
    seen = b""
    while repeated:
        transcript.add(whole)
        seen += whole
        said = transcript.plain_text()
        if said is None or not (said.startswith(repeated) or repeated.startswith(said)):
            return False
        if len(said) >= len(repeated):
            stream.first = seen
            break
        whole = await stream.read()
        if not whole:
            return False
    return True


def _prompt_fields(members: Mapping[str, msgspec.Raw], text: str) -> dict[str, object]:
    """The `/tokenize` request fields for the prompt with the text so far."""
    fields = ("prompt",) if "messages" not in members else PROMPT_FIELDS
    return {name: members[name] for name in fields if name in members} | _prompt_with(members, text)


def continues(route: Route, endpoints: Endpoints) -> bool:
    """Whether every endpoint that may be sent a request of this route can continue a text: vLLM's can."""
    serving = [each for served in route.models for each in endpoints.serving(served.name)]
    return all(each.spec.kind == "vllm" for each in serving)
