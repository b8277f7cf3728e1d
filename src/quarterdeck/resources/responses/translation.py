"""A response's request as the request of a chat completion. Pure."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from quarterdeck.errors import BadRequestError
from quarterdeck.resources.responses import tools as tool_translation
from quarterdeck.resources.responses.function_names import chat_name
from quarterdeck.resources.responses.inline_files import inlined
from quarterdeck.resources.responses.items import Item
from quarterdeck.resources.responses.requests import ResponseRequest
from quarterdeck.resources.responses.tool_loop.approvals import refused

Message = dict[str, Any]
FunctionName = Callable[[str, str], str]
"""The function that a server's tool has in the chat completion, by label and name."""

_SYSTEM = ("system", "developer")


def chat_members(
    request: ResponseRequest,
    shown: Mapping[str, Any],
    messages: Sequence[Message],
    engine: Mapping[str, msgspec.Raw],
) -> dict[str, Any]:
    """Members of the chat completion. `shown` is the response object, `engine` has the engine's own parameters."""
    members: dict[str, Any] = {**engine, "messages": messages}
    for name in ("model", "prompt", "temperature", "top_p", "user", "safety_identifier", "prompt_cache_key"):
        if (value := getattr(request, name)) is not None:
            members[name] = value
    if request.metadata:
        members["metadata"] = request.metadata
    if request.max_output_tokens is not None:
        members["max_completion_tokens"] = request.max_output_tokens
    if request.shows_logprobs:  # as OpenAI: `top_logprobs` says how many, `include` whether
        members["logprobs"] = True
        if request.top_logprobs:
            members["top_logprobs"] = request.top_logprobs
    if request.reasoning is not None and request.reasoning.effort is not None:
        members["reasoning_effort"] = request.reasoning.effort
    if request.text is not None and request.text.verbosity is not None:
        members["verbosity"] = request.text.verbosity
    if request.service_tier not in (None, "auto", "default"):
        members["service_tier"] = request.service_tier
    members |= tool_translation.chat_members(request, shown["tools"], shown["tool_choice"], shown["text"]["format"])
    if request.stream:
        members["stream"] = True
        members["stream_options"] = {"include_usage": True}
    return members


def chat_messages(
    instructions: str | None, items: Sequence[Item], function_name: FunctionName = lambda label, name: name
) -> list[Message]:
    """The messages of a chat. Raises BadRequestError for an output without its call.

    A call of a server's tool has its result in the same item. One that is waiting for an approval is not shown.

    The instructions and the system messages at the beginning become one message: chat templates of many models take
    one only, and none of them knows `developer`.
    """
    messages: list[Message] = []
    leading = [instructions] if instructions else []
    reasoning: list[str] = []
    called: set[str] = set()
    refusals = refused(items)
    for item in items:
        kind = item["type"]
        if kind == "reasoning":
            reasoning += [part["text"] for part in item.get("content") or ()]
            continue
        if kind == "message" and item["role"] in _SYSTEM:
            text = "\n\n".join(_texts(item["content"]))
            if not messages:
                leading.append(text)
            else:
                messages.append({"role": "system", "content": text})
        elif kind == "message" and item["role"] == "user":
            messages.append({"role": "user", "content": _content(item["content"])})
        elif kind == "message":
            messages.append(_with_reasoning({"role": "assistant", "content": _answer(item["content"])}, reasoning))
        elif kind == "function_call":
            called.add(item["call_id"])
            _assistant(messages, reasoning)["tool_calls"].append(
                {
                    "id": item["call_id"],
                    "type": "function",
                    "function": {
                        "name": chat_name(item.get("namespace"), item["name"]),
                        "arguments": item["arguments"] or "{}",
                    },
                }
            )
        elif kind == "function_call_output":
            if item["call_id"] not in called:
                raise BadRequestError(
                    f"No tool call found for function call output with call_id {item['call_id'][:100]}.", param="input"
                )
            messages.append({"role": "tool", "tool_call_id": item["call_id"], "content": _content(item["output"])})
        elif kind == "mcp_call" and item["status"] != "in_progress":
            _call_with_result(messages, reasoning, function_name, item, _tool_result(item))
        elif kind == "mcp_approval_request" and item["id"] in refusals:
            reason = refusals[item["id"]]
            text = f"The user did not approve this call: {reason}" if reason else "The user did not approve this call."
            _call_with_result(messages, reasoning, function_name, item, text)
        elif kind in ("mcp_list_tools", "mcp_approval_request", "mcp_approval_response"):
            continue
        reasoning = []
    if leading:
        messages.insert(0, {"role": "system", "content": "\n\n".join(leading)})
    return messages


def _call_with_result(
    messages: list[Message], reasoning: list[str], function_name: FunctionName, item: Item, result: str
) -> None:
    function = {"name": function_name(item["server_label"], item["name"]), "arguments": item["arguments"] or "{}"}
    _assistant(messages, reasoning)["tool_calls"].append({"id": item["id"], "type": "function", "function": function})
    messages.append({"role": "tool", "tool_call_id": item["id"], "content": result})


def _tool_result(item: Item) -> str:
    """What the model is given of a call."""
    if (error := item.get("error")) is None:
        return item["output"] or ""
    if isinstance(error, dict) and isinstance(content := error.get("content"), list):
        texts = [part["text"] for part in content if isinstance(part, dict) and isinstance(part.get("text"), str)]
        return "Error: " + "\n".join(texts)
    message = error.get("message") if isinstance(error, dict) else error
    return f"Error: {message}"


def _assistant(messages: list[Message], reasoning: list[str]) -> Message:
    """The assistant's message that a call belongs to: the last one, if the assistant said it in the same turn."""
    if not messages or messages[-1]["role"] != "assistant":
        messages.append(_with_reasoning({"role": "assistant", "content": None}, reasoning))
    message = messages[-1]
    message.setdefault("tool_calls", [])
    return message


def _with_reasoning(message: Message, reasoning: list[str]) -> Message:
    if reasoning:
        message["reasoning"] = "".join(reasoning)
    return message


def _texts(parts: Iterable[Item]) -> list[str]:
    """The texts of a system message. Raises BadRequestError for a picture in it, or a file."""
    texts = []
    for part in parts:
        if part["type"] not in ("input_text", "output_text"):
            raise BadRequestError(
                f"Invalid value: '{part['type']}'. A system or developer message has text only.",
                param="input",
                code="invalid_value",
            )
        texts.append(part["text"])
    return texts


def _answer(parts: Sequence[Item]) -> str:
    return "".join(part["text"] if part["type"] == "output_text" else part["refusal"] for part in parts)


def _content(parts: str | Sequence[Item]) -> str | list[dict[str, Any]]:
    """A text where there is nothing but one, as all engines take it."""
    if isinstance(parts, str):
        return parts
    if len(parts) == 1 and parts[0]["type"] == "input_text":
        return str(parts[0]["text"])
    return [chat_part(part) for part in parts]


def chat_part(part: Item) -> dict[str, Any]:
    """A part of an input as a part of a chat's message."""
    kind = part["type"]
    if kind == "input_text":
        return {"type": "text", "text": part["text"]}
    if kind == "input_image":
        image = {"url": part["image_url"]}
        if part["detail"] != "auto":
            image["detail"] = part["detail"]
        return {"type": "image_url", "image_url": image}
    if kind == "input_audio":
        return {"type": "input_audio", "input_audio": part["input_audio"]}
    if (read := inlined(part)) is not None:
        return chat_part(read)
    return {"type": "file", "file": {name: part[name] for name in ("filename", "file_data") if name in part}}
