"""A request to create a response, decoded and checked. Pure.

What the platform does not serve is refused by name, so that no option is ignored in silence. Parameters of sampling
that are the engines' own (`top_k`, `seed`, …) pass through, as in chat completions.
"""

from collections.abc import Collection, Mapping
from typing import Annotated, Any

import msgspec

from quarterdeck.errors import BadRequestError
from quarterdeck.protocol import requests
from quarterdeck.protocol.requests import BOM, Least

ENGINE_PARAMETERS = frozenset(
    {
        *("seed", "stop", "top_k", "min_p", "repetition_penalty", "presence_penalty", "frequency_penalty"),
        *("logit_bias", "min_tokens", "stop_token_ids", "ignore_eos", "bad_words", "skip_special_tokens"),
        *("chat_template_kwargs", "structured_outputs", "cache_salt", "priority", "thinking_token_budget", "cache"),
    }
)
"""Members that the Responses API does not have and that chat completions take: sent to the engine as they are."""
NOT_SERVED = frozenset(
    {
        *("access_programs", "background_options", "context_management", "image", "moderation"),
        *("prompt_cache_options",),
    }
)
"""Members of the Responses API that the platform does not serve. null is accepted."""
IGNORED = frozenset({"client_metadata"})
"""Members that change no answer, and that clients always send (Codex: what it knows of its session)."""
OF_CHAT = {
    "messages": "input",
    "max_tokens": "max_output_tokens",
    "max_completion_tokens": "max_output_tokens",
    "response_format": "text.format",
    "reasoning_effort": "reasoning.effort",
    "verbosity": "text.verbosity",
    "functions": "tools",
    "function_call": "tool_choice",
    "logprobs": "top_logprobs",
}
"""Members of chat completions, and what they are called here."""
INCLUDABLE = frozenset(
    {
        *("file_search_call.results", "web_search_call.results", "web_search_call.action.sources"),
        *("message.input_image.image_url", "computer_call_output.output.image_url", "code_interpreter_call.outputs"),
        *("reasoning.encrypted_content", "message.output_text.logprobs"),
    }
)
"""Reasoning is not hidden here: it is in each reasoning item's `content`, with or without `encrypted_content`
(`history.reasoning_sealer`)."""
SERVICE_TIERS = frozenset({"auto", "default", "flex", "priority", "scale", "fast", "ultrafast"})
CACHE_RETENTIONS = frozenset({"in_memory", "in-memory", "24h"})
"""The longest that cached prefixes may be kept: an engine's memory keeps them for less."""
EFFORTS = frozenset({"none", "minimal", "low", "medium", "high", "xhigh", "max"})
VERBOSITIES = frozenset({"low", "medium", "high"})
MAX_PAIRS, MAX_KEY, MAX_VALUE = 16, 64, 512
"""Of `metadata`, as OpenAI's."""


class ConversationReference(msgspec.Struct, frozen=True):
    id: str


class TextParameters(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    format: dict[str, Any] | None = None
    verbosity: str | None = None


class ReasoningParameters(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    effort: str | None = None
    summary: str | None = None
    generate_summary: str | None = None
    context: str | None = None
    mode: str | None = None


class StreamOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    include_obfuscation: bool | None = None


class ResponseRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Members as OpenAI's Responses API has them. None: not given."""

    model: str | None = None
    input: str | list[dict[str, Any]] | None = None
    instructions: str | None = None
    previous_response_id: str | None = None
    conversation: str | ConversationReference | None = None
    prompt: dict[str, Any] | None = None
    store: bool | None = None
    background: bool | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    temperature: float | None = None
    top_p: float | None = None
    max_output_tokens: Least | None = None
    max_tool_calls: Least | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    text: TextParameters | None = None
    reasoning: ReasoningParameters | None = None
    truncation: str | None = None
    include: list[str] | None = None
    metadata: dict[str, Any] | None = None
    """Of texts, which `check` finds: msgspec would not name the key."""
    top_logprobs: Annotated[int, msgspec.Meta(ge=0, le=20)] | None = None
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None
    service_tier: str | None = None

    @property
    def conversation_id(self) -> str | None:
        return self.conversation.id if isinstance(self.conversation, ConversationReference) else self.conversation

    @property
    def shows_logprobs(self) -> bool:
        return "message.output_text.logprobs" in (self.include or ())

    @property
    def is_obfuscated(self) -> bool:
        return self.stream_options is not None and bool(self.stream_options.include_obfuscation)


KNOWN = frozenset(ResponseRequest.__struct_fields__) | IGNORED
OF_TOKEN_COUNT = frozenset(
    {
        *("model", "input", "instructions", "previous_response_id", "conversation", "tools", "tool_choice"),
        *("parallel_tool_calls", "reasoning", "text", "truncation", "personality"),
    }
)
"""Members of `/v1/responses/input_tokens`."""


def read_request(body: bytes) -> tuple[ResponseRequest, dict[str, msgspec.Raw]]:
    """A decoded body and its members that are the engine's own. Raises BadRequestError naming the parameter."""
    body = body.removeprefix(BOM)
    request: ResponseRequest = requests.decode(body, ResponseRequest)
    members = requests.members(body)
    for name, raw in members.items():
        if name not in KNOWN and name not in ENGINE_PARAMETERS and bytes(raw) != b"null":
            raise unknown(name)
    check(request)
    engine = {name: raw for name, raw in members.items() if name in ENGINE_PARAMETERS and bytes(raw) != b"null"}
    return request, engine


def read_token_count(body: bytes) -> ResponseRequest:
    """The body of a request to count the tokens of an input. Raises BadRequestError."""
    body = body.removeprefix(BOM)
    request: ResponseRequest = requests.decode(body, ResponseRequest)
    for name, raw in requests.members(body).items():
        if bytes(raw) != b"null" and (name == "personality" or name not in OF_TOKEN_COUNT):
            raise _unsupported(name) if name in OF_TOKEN_COUNT else unknown(name)
    check(request)
    return request


def check_metadata(metadata: Mapping[str, Any] | None) -> None:
    """Raises BadRequestError for more or longer pairs than OpenAI's objects have, and for values that are no texts."""
    if metadata is None:
        return
    if len(metadata) > MAX_PAIRS:
        raise BadRequestError(
            f"Invalid 'metadata': too many properties. Expected an object with at most {MAX_PAIRS} properties, but got "
            f"an object with {len(metadata)} properties instead.",
            param="metadata",
            code="object_above_max_properties",
        )
    for key, value in metadata.items():
        if not isinstance(value, str):
            param = f"metadata.{key[:MAX_KEY]}"
            raise BadRequestError(f"Invalid type for '{param}': expected a string.", param=param, code="invalid_type")
        for what, text, most in (("key", key, MAX_KEY), ("value", value, MAX_VALUE)):
            if len(text) > most:
                raise BadRequestError(
                    f"Invalid 'metadata': a {what} is too long. Expected at most {most} characters, but got "
                    f"{len(text)}.",
                    param="metadata",
                    code="string_above_max_length",
                )


def check(request: ResponseRequest) -> None:
    """The values of members. Raises BadRequestError."""
    if request.previous_response_id is not None and request.conversation is not None:
        raise BadRequestError(
            "Mutually exclusive parameters: use one of 'previous_response_id' and 'conversation'.",
            param="previous_response_id",
            code="mutually_exclusive_parameters",
        )
    check_metadata(request.metadata)
    _one_of("truncation", request.truncation, ("auto", "disabled"))
    _one_of("service_tier", request.service_tier, SERVICE_TIERS)
    _one_of("prompt_cache_retention", request.prompt_cache_retention, CACHE_RETENTIONS)
    for index, name in enumerate(request.include or ()):
        _one_of(f"include[{index}]", name, INCLUDABLE)
    if (text := request.text) is not None:
        _one_of("text.verbosity", text.verbosity, VERBOSITIES)
    if (reasoning := request.reasoning) is not None:
        _one_of("reasoning.effort", reasoning.effort, EFFORTS)
        for name in ("summary", "generate_summary"):
            if getattr(reasoning, name) in ("concise", "detailed"):
                raise _unsupported(
                    f"reasoning.{name}",
                    "Summaries of the reasoning are not made: the reasoning itself is in each reasoning item's "
                    "`content`. Use `auto` or leave it out.",
                )
            _one_of(f"reasoning.{name}", getattr(reasoning, name), ("auto",))
        _one_of("reasoning.context", reasoning.context, ("auto", "all_turns"))
        _one_of("reasoning.mode", reasoning.mode, ("standard",))
    for name, most in (("temperature", 2.0), ("top_p", 1.0)):
        value = getattr(request, name)
        if value is not None and not 0 <= value <= most:
            raise BadRequestError(
                f"Invalid '{name}': expected a value between 0 and {most:g}, but got {value:g}.",
                param=name,
                code="decimal_above_max_value" if value > 0 else "decimal_below_min_value",
            )


def _one_of(param: str, value: str | None, served: Collection[str]) -> None:
    if value is not None and value not in served:
        names = ", ".join(f"'{name}'" for name in sorted(served))
        raise BadRequestError(
            f"Invalid value: '{value[:100]}'. Supported values are: {names}.", param=param, code="invalid_value"
        )


def unknown(name: str) -> BadRequestError:
    """The error of a member that is not served."""
    if name in NOT_SERVED:
        return _unsupported(name)
    if (other := OF_CHAT.get(name)) is not None:
        return _unsupported(name, f"In the Responses API, this parameter is '{other}'.")
    return BadRequestError(f"Unknown parameter: '{name[:100]}'.", param=name[:100], code="unknown_parameter")


def _unsupported(name: str, hint: str = "It is not served here.") -> BadRequestError:
    return BadRequestError(f"Unsupported parameter: '{name}'. {hint}", param=name, code="unsupported_parameter")
