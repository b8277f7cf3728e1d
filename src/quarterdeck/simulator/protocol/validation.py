"""Checks of request bodies: vLLM's limits and messages. Every check raises VLLMError."""

from typing import Any

import msgspec

from quarterdeck.simulator.errors import VLLMError, invalid_request
from quarterdeck.simulator.protocol.requests import ChatRequest, Sampling, stop_strings

MAX_LOGPROBS = 20
MAX_N = 128
VOCABULARY = 49_152
"""Tokens that SmolLM2 knows."""


def check_sampling(request: Sampling) -> None:
    if request.stream_options is not None and not request.stream:
        raise invalid_request("Stream options can only be defined when `stream=True`.", "stream_options")
    n = 1 if request.n is None else request.n
    if n < 1:
        raise invalid_request(f"n must be at least 1, got {n}.")
    if n > MAX_N:
        raise invalid_request(f"n must be at most {MAX_N}, got {n}.")
    for name in ("presence_penalty", "frequency_penalty"):
        value = getattr(request, name)
        if value is not None and not -2 <= value <= 2:
            raise invalid_request(f"{name} must be in [-2, 2], got {value}.")
    temperature = request.temperature
    if temperature is not None and temperature < 0:
        raise invalid_request(f"temperature must be non-negative, got {temperature}.", "temperature")
    if temperature is not None and temperature > 2:
        raise invalid_request(f"temperature must be in [0, 2], got {temperature}.", "temperature")
    if request.top_p is not None and not 0 < request.top_p <= 1:
        raise invalid_request(f"top_p must be in (0, 1], got {request.top_p}.", "top_p")
    if request.top_k is not None and request.top_k < -1:
        raise invalid_request(f"top_k must be 0 (disable), or at least 1, got {request.top_k}.")
    if request.min_tokens < 0:
        raise invalid_request(f"min_tokens must be greater than or equal to 0, got {request.min_tokens}.")
    if any(not stop for stop in stop_strings(request)):
        raise invalid_request("stop cannot contain an empty string.")
    if temperature is not None and temperature < 1e-5 and n > 1:
        raise invalid_request(f"n must be 1 when using greedy sampling, got {n}.")
    check_response_format(request.response_format)


def check_response_format(form: dict[str, Any] | None) -> None:
    if form is None:
        return
    kind = form.get("type")
    if kind == "json_schema" and not isinstance(form.get("json_schema"), dict):
        raise invalid_request(
            "When response_format type is 'json_schema', the 'json_schema' field must be provided.", "response_format"
        )
    if kind not in ("text", "json_object", "json_schema", "structural_tag"):
        raise VLLMError(
            "1 validation error:\n  {'type': 'literal_error', 'loc': ('body', 'response_format', 'type'), "
            "'msg': \"Input should be 'text', 'json_object' or 'json_schema'\"}",
            type="Bad Request",
            param="body.response_format.type",
        )


def check_messages(messages: list[dict[str, Any]]) -> None:
    if not messages:
        raise invalid_request("messages: at least one message is needed", "messages")
    for index, message in enumerate(messages):
        if not isinstance(message.get("role"), str):
            raise VLLMError(
                f"1 validation error:\n  {{'type': 'missing', 'loc': ('body', 'messages', {index}, 'role'), "
                "'msg': 'Field required'}",
                type="Bad Request",
                param=f"body.messages.{index}.role",
            )
        _check_nulls(index, message)
        content = message.get("content")
        listed = isinstance(content, list) and all(isinstance(part, dict | str) for part in content)
        calls = message.get("tool_calls") or []
        if not isinstance(calls, list) or not all(isinstance(call, dict) for call in calls):
            raise invalid_request("`tool_calls` must be a list of tool calls.", f"messages.{index}.tool_calls")
        if not (content is None or isinstance(content, str) or listed):
            raise VLLMError(
                f"1 validation error:\n  {{'type': 'string_type', 'loc': ('body', 'messages', {index}, 'content'), "
                "'msg': 'Input should be a valid string'}",
                type="Bad Request",
                param=f"body.messages.{index}.content",
            )
        calls = message.get("tool_calls")
        if not (calls is None or (isinstance(calls, list) and all(isinstance(call, dict) for call in calls))):
            raise VLLMError(
                f"1 validation error:\n  {{'type': 'list_type', 'loc': ('body', 'messages', {index}, 'tool_calls'), "
                "'msg': 'Input should be a valid list'}",
                type="Bad Request",
                param=f"body.messages.{index}.tool_calls",
            )
        _check_calls(message)


def _check_nulls(index: int, message: dict[str, Any]) -> None:
    """vLLM takes a null for most members of a message, but not for its name, nor as the content of most roles."""
    role = message["role"]
    if "name" in message and message["name"] is None and role not in ("tool", "function"):
        raise _no_message_of_the_union(index, role, "name")
    if "content" in message and message["content"] is None and role in ("developer", "system", "user", "tool"):
        raise _no_message_of_the_union(index, role, "content")


def _check_calls(message: dict[str, Any]) -> None:
    """vLLM reads an assistant's calls late, and names their place in the list only."""
    for index, call in enumerate(message.get("tool_calls") or ()):
        function = call.get("function")
        if call.get("type", "function") != "function" or not isinstance(function, dict):
            continue
        if "arguments" in function and not isinstance(function["arguments"], str):
            where = f"('body', {index}, 'ChatCompletionMessageFunctionToolCallParam', 'function', 'arguments')"
            raise VLLMError(
                f"1 validation error:\n  {{'type': 'string_type', 'loc': {where}, "
                "'msg': 'Input should be a valid string'}",
                type="Bad Request",
                param=f"body.{index}.ChatCompletionMessageFunctionToolCallParam.function",
            )


def _no_message_of_the_union(index: int, role: str, field: str) -> VLLMError:
    """pydantic tries each type of a message and reports all problems."""
    problems: list[str] = []
    for each in ("Developer", "System", "User", "Assistant", "Tool", "Function"):
        where = f"('body', 'messages', {index}, 'ChatCompletion{each}MessageParam'"
        if each.lower() != role:
            problems.append(
                f"{{'type': 'literal_error', 'loc': {where}, 'role'), 'msg': \"Input should be '{each.lower()}'\"}}"
            )
        problems.append(
            f"{{'type': 'string_type', 'loc': {where}, '{field}'), 'msg': 'Input should be a valid string', "
            "'input': None}"
        )
    where = f"('body', 'messages', {index}, 'Message'"
    problems.append(f"{{'type': 'missing', 'loc': {where}, 'author'), 'msg': 'Field required'}}")
    problems.append(f"{{'type': 'list_type', 'loc': {where}, 'content'), 'msg': 'Input should be a valid list'}}")
    lines = "".join(f"\n  {problem}" for problem in problems)
    return VLLMError(
        f"{len(problems)} validation errors:{lines}",
        type="Bad Request",
        param=f"body.messages.{index}.ChatCompletionDeveloperMessageParam.role",
    )


def check_chat(request: ChatRequest) -> None:
    check_messages(request.messages)
    if request.continue_final_message and request.add_generation_prompt:
        raise invalid_request("Cannot set both `continue_final_message` and `add_generation_prompt` to True.")
    top = request.top_logprobs
    if top is not None:
        if top < 0 and top != -1:
            raise invalid_request("`top_logprobs` must be a positive value or -1.", "top_logprobs")
        if top and not request.logprobs:
            raise invalid_request("when using `top_logprobs`, `logprobs` must be set to true.", "top_logprobs")
        check_logprobs(top)
    check_tools(request)


def check_logprobs(count: int) -> None:
    """-1 stands for the whole vocabulary, which is more than vLLM's default maximum."""
    count = VOCABULARY if count == -1 else count
    if count > MAX_LOGPROBS:
        raise invalid_request(
            f"Requested sample logprobs of {count}, which is greater than max allowed: {MAX_LOGPROBS}", "logprobs"
        )


def check_tools(request: ChatRequest) -> None:
    if request.tools is not None and not request.tools:
        raise invalid_request(
            "`tools` must not be an empty array. Either provide at least one tool or omit the field entirely.", "tools"
        )
    for index, tool in enumerate(request.tools or ()):
        if tool.get("type") != "function":
            raise VLLMError(
                f"1 validation error:\n  {{'type': 'literal_error', 'loc': ('body', 'tools', {index}, 'type'), "
                "'msg': \"Input should be 'function'\"}",
                type="Bad Request",
                param=f"body.tools.{index}.type",
            )
        if not isinstance(tool.get("function"), dict) or not isinstance(tool["function"].get("name"), str):
            raise VLLMError(
                f"1 validation error:\n  {{'type': 'missing', 'loc': ('body', 'tools', {index}, 'function', 'name'), "
                "'msg': 'Field required'}",
                type="Bad Request",
                param=f"body.tools.{index}.function.name",
            )
    choice = request.tool_choice
    if choice is msgspec.UNSET or choice in (None, "none"):
        return
    if request.tools is None:
        raise invalid_request("When using `tool_choice`, `tools` must be set.", "tool_choice")
    if choice in ("auto", "required"):
        return
    usage = 'Correct usage: `{"type": "function", "function": {"name": "my_function"}}`'
    if not isinstance(choice, dict):
        raise invalid_request(
            f'Invalid value for `tool_choice`: {choice}! Only named tools, "none", "auto" or "required" are supported.',
            "tool_choice",
        )
    function = choice.get("function")
    if not isinstance(function, dict):
        raise invalid_request(
            f"Invalid value for `function`: `{function}` in `tool_choice`! {usage}", "tool_choice.function"
        )
    if not isinstance(function.get("name"), str):
        raise invalid_request(
            f"Expected field `name` in `function` in `tool_choice`! {usage}", "tool_choice.function.name"
        )
    if function["name"] not in [tool["function"]["name"] for tool in request.tools]:
        raise invalid_request(
            "The tool specified in `tool_choice` does not match any of the specified `tools`", "tool_choice"
        )
