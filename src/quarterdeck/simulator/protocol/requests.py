"""The requests that are understood, typed where they are read; other fields are let through, as vLLM does."""

from typing import Any, TypeVar

import msgspec

from quarterdeck.simulator.errors import Refusal, invalid, unreadable, wrong_type

T = TypeVar("T")

MAX_LOGPROBS = 20
MAX_N = 128

Prompt = str | list[Any]
"""A text, tokens, or a list of either."""


class StreamOptions(msgspec.Struct):
    include_usage: bool | None = False
    continuous_usage_stats: bool | None = False


class Sampling(msgspec.Struct, kw_only=True):
    """What chat and completions have in common."""

    model: str | None = None
    n: int | None = 1
    seed: int | None = None
    stop: str | list[str] | None = None
    stop_token_ids: list[int] | None = None
    include_stop_str_in_output: bool = False
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    presence_penalty: float | None = 0.0
    frequency_penalty: float | None = 0.0
    ignore_eos: bool = False
    min_tokens: int = 0
    response_format: dict[str, Any] | None = None
    structured_outputs: dict[str, Any] | None = None
    cache_salt: str | None = None
    return_token_ids: bool | None = None
    echo: bool | None = False


class ChatRequest(Sampling, kw_only=True):
    messages: list[dict[str, Any]]
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    logprobs: bool | None = False
    top_logprobs: int | None = 0
    tools: list[dict[str, Any]] | None = None
    tool_choice: Any = msgspec.UNSET
    continue_final_message: bool = False
    add_generation_prompt: bool = True


class CompletionRequest(Sampling, kw_only=True):
    prompt: Prompt
    max_tokens: int | None = 16
    logprobs: int | None = None
    suffix: str | None = None


class EmbeddingRequest(msgspec.Struct, kw_only=True):
    input: Prompt
    model: str | None = None
    encoding_format: str = "float"
    dimensions: int | None = None
    truncate_prompt_tokens: int | None = None


class ScoreRequest(msgspec.Struct, kw_only=True):
    model: str | None = None
    text_1: Any = None
    text_2: Any = None
    queries: Any = None
    documents: Any = None
    data_1: Any = None
    data_2: Any = None


class TokenizeRequest(msgspec.Struct, kw_only=True):
    model: str | None = None
    prompt: str | None = None
    messages: list[dict[str, Any]] | None = None
    tools: list[dict[str, Any]] | None = None
    add_generation_prompt: bool = True
    continue_final_message: bool = False
    return_token_strs: bool | None = False


class DetokenizeRequest(msgspec.Struct, kw_only=True):
    tokens: list[int]
    model: str | None = None


class LoadAdapterRequest(msgspec.Struct, kw_only=True):
    lora_name: str = ""
    lora_path: str = ""
    load_inplace: bool = False


class UnloadAdapterRequest(msgspec.Struct, kw_only=True):
    lora_name: str = ""


def read(body: bytes, kind: type[T]) -> T:
    """The body as this kind of request, numbers in strings taken as pydantic takes them. Raises Refusal."""
    try:
        return msgspec.json.decode(body, type=kind, strict=False)
    except msgspec.ValidationError as error:
        raise wrong_type(error) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise unreadable(error) from error


def check_sampling(request: Sampling) -> None:
    """vLLM's own limits, in its words."""
    if request.stream_options is not None and not request.stream:
        raise invalid("Stream options can only be defined when `stream=True`.", "stream_options")
    n = 1 if request.n is None else request.n
    if n < 1:
        raise invalid(f"n must be at least 1, got {n}.")
    if n > MAX_N:
        raise invalid(f"n must be at most {MAX_N}, got {n}.")
    for name in ("presence_penalty", "frequency_penalty"):
        value = getattr(request, name)
        if value is not None and not -2 <= value <= 2:
            raise invalid(f"{name} must be in [-2, 2], got {value}.")
    temperature = request.temperature
    if temperature is not None and temperature < 0:
        raise invalid(f"temperature must be non-negative, got {temperature}.", "temperature")
    if temperature is not None and temperature > 2:
        raise invalid(f"temperature must be in [0, 2], got {temperature}.", "temperature")
    if request.top_p is not None and not 0 < request.top_p <= 1:
        raise invalid(f"top_p must be in (0, 1], got {request.top_p}.", "top_p")
    if request.top_k is not None and request.top_k < -1:
        raise invalid(f"top_k must be 0 (disable), or at least 1, got {request.top_k}.")
    if request.min_tokens < 0:
        raise invalid(f"min_tokens must be greater than or equal to 0, got {request.min_tokens}.")
    if any(not stop for stop in stops(request)):
        raise invalid("stop cannot contain an empty string.")
    if temperature is not None and temperature < 1e-5 and n > 1:
        raise invalid(f"n must be 1 when using greedy sampling, got {n}.")
    check_response_format(request.response_format)


def check_response_format(form: dict[str, Any] | None) -> None:
    if form is None:
        return
    kind = form.get("type")
    if kind == "json_schema" and not isinstance(form.get("json_schema"), dict):
        raise invalid(
            "When response_format type is 'json_schema', the 'json_schema' field must be provided.", "response_format"
        )
    if kind not in ("text", "json_object", "json_schema", "structural_tag"):
        raise Refusal(
            "1 validation error:\n  {'type': 'literal_error', 'loc': ('body', 'response_format', 'type'), "
            "'msg': \"Input should be 'text', 'json_object' or 'json_schema'\"}",
            type="Bad Request",
            param="body.response_format.type",
        )


def check_messages(messages: list[dict[str, Any]]) -> None:
    if not messages:
        raise invalid("messages: at least one message is needed", "messages")
    for index, message in enumerate(messages):
        if not isinstance(message.get("role"), str):
            raise Refusal(
                f"1 validation error:\n  {{'type': 'missing', 'loc': ('body', 'messages', {index}, 'role'), "
                "'msg': 'Field required'}",
                type="Bad Request",
                param=f"body.messages.{index}.role",
            )
        content = message.get("content")
        listed = isinstance(content, list) and all(isinstance(part, dict | str) for part in content)
        calls = message.get("tool_calls") or []
        if not isinstance(calls, list) or not all(isinstance(call, dict) for call in calls):
            raise invalid("`tool_calls` must be a list of tool calls.", f"messages.{index}.tool_calls")
        if not (content is None or isinstance(content, str) or listed):
            raise Refusal(
                f"1 validation error:\n  {{'type': 'string_type', 'loc': ('body', 'messages', {index}, 'content'), "
                "'msg': 'Input should be a valid string'}",
                type="Bad Request",
                param=f"body.messages.{index}.content",
            )
        calls = message.get("tool_calls")
        if not (calls is None or (isinstance(calls, list) and all(isinstance(call, dict) for call in calls))):
            raise Refusal(
                f"1 validation error:\n  {{'type': 'list_type', 'loc': ('body', 'messages', {index}, 'tool_calls'), "
                "'msg': 'Input should be a valid list'}",
                type="Bad Request",
                param=f"body.messages.{index}.tool_calls",
            )


def check_chat(request: ChatRequest) -> None:
    check_messages(request.messages)
    if request.continue_final_message and request.add_generation_prompt:
        raise invalid("Cannot set both `continue_final_message` and `add_generation_prompt` to True.")
    top = request.top_logprobs
    if top is not None:
        if top < 0 and top != -1:
            raise invalid("`top_logprobs` must be a positive value or -1.", "top_logprobs")
        if top and not request.logprobs:
            raise invalid("when using `top_logprobs`, `logprobs` must be set to true.", "top_logprobs")
        check_logprobs(top)
    check_tools(request)


def check_logprobs(count: int) -> None:
    if count > MAX_LOGPROBS:
        raise invalid(
            f"Requested sample logprobs of {count}, which is greater than max allowed: {MAX_LOGPROBS}", "logprobs"
        )


def check_tools(request: ChatRequest) -> None:
    if request.tools is not None and not request.tools:
        raise invalid(
            "`tools` must not be an empty array. Either provide at least one tool or omit the field entirely.", "tools"
        )
    for index, tool in enumerate(request.tools or ()):
        if not isinstance(tool.get("function"), dict) or not isinstance(tool["function"].get("name"), str):
            raise Refusal(
                f"1 validation error:\n  {{'type': 'missing', 'loc': ('body', 'tools', {index}, 'function', 'name'), "
                "'msg': 'Field required'}",
                type="Bad Request",
                param=f"body.tools.{index}.function.name",
            )
    choice = request.tool_choice
    if choice is msgspec.UNSET or choice in (None, "none"):
        return
    if request.tools is None:
        raise invalid("When using `tool_choice`, `tools` must be set.", "tool_choice")
    if choice in ("auto", "required"):
        return
    usage = 'Correct usage: `{"type": "function", "function": {"name": "my_function"}}`'
    if not isinstance(choice, dict):
        raise invalid(
            f'Invalid value for `tool_choice`: {choice}! Only named tools, "none", "auto" or "required" are supported.',
            "tool_choice",
        )
    function = choice.get("function")
    if not isinstance(function, dict):
        raise invalid(f"Invalid value for `function`: `{function}` in `tool_choice`! {usage}", "tool_choice.function")
    if not isinstance(function.get("name"), str):
        raise invalid(f"Expected field `name` in `function` in `tool_choice`! {usage}", "tool_choice.function.name")
    if function["name"] not in [tool["function"]["name"] for tool in request.tools]:
        raise invalid("The tool specified in `tool_choice` does not match any of the specified `tools`", "tool_choice")


def stops(request: Sampling) -> tuple[str, ...]:
    if request.stop is None:
        return ()
    return (request.stop,) if isinstance(request.stop, str) else tuple(request.stop)
