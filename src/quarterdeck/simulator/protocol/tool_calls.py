"""Tool calls: which tool is called, the text that a model would write for the call, and its stream deltas."""

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from quarterdeck.simulator.errors import invalid_request
from quarterdeck.simulator.model.chat_template import last_user_text
from quarterdeck.simulator.model.json_schemas import UnsatisfiableError, example_value
from quarterdeck.simulator.protocol.requests import ChatRequest


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A tool to call. The model writes `head` before the arguments and `tail` after them."""

    name: str
    schema: Any
    head: str
    tail: str
    finish_reason: str


@dataclass(frozen=True, slots=True)
class Written:
    """A call in a generated text. `end` is that of its arguments, or of the text if it was cut short."""

    call: ToolCall
    begin: int
    end: int


def generated_text(calls: Sequence[ToolCall], start: int) -> str:
    """Return the text as the model writes it; each call has arguments of its own. Raises VLLMError if a schema cannot
    be satisfied."""
    text = ""
    for at, call in enumerate(calls):
        try:
            arguments = example_value(call.schema, start + at)
        except UnsatisfiableError as error:
            raise invalid_request(
                f"The parameters of the tool '{call.name}' can't be satisfied: {error}", "tools"
            ) from error
        text += call.head + msgspec.json.encode(arguments).decode() + call.tail
    return text


def requested_tool_calls(request: ChatRequest, auto: bool) -> list[ToolCall]:
    """Return the calls that the request asks for. With `auto` or `required`, the tools that the last user message
    names are called, each as often as it is named."""
    choice = request.tool_choice
    if not request.tools or choice == "none":
        return []
    functions: dict[str, dict[str, Any]] = {tool["function"]["name"]: tool["function"] for tool in request.tools}
    if isinstance(choice, dict):
        name = choice["function"]["name"]
        return [_call(functions[name], "", "", "stop")]
    named = _mentioned_tools(request, functions)
    if choice == "required":
        named = named or [next(iter(functions))]
        heads = ["[", *[", "] * (len(named) - 1)]
        tails = [*["}"] * (len(named) - 1), "}]"]
        argument = "parameters"
    elif auto:
        heads = ["<tool_call>\n", *["\n<tool_call>\n"] * (len(named) - 1)]
        tails = ["}\n</tool_call>"] * len(named)
        argument = "arguments"
    else:
        return []
    return [
        _call(functions[name], f'{head}{{"name": {_quoted(name)}, "{argument}": ', tail, "tool_calls")
        for name, head, tail in zip(named, heads, tails, strict=False)
    ]


def written_calls(calls: Sequence[ToolCall], text: str) -> list[Written]:
    """The calls that a generated text has, complete or not."""
    found = []
    at = 0
    for index, call in enumerate(calls):
        begin = at + len(call.head)
        if begin > len(text) or not text.startswith(call.head, at):
            break
        if index + 1 < len(calls):
            end = text.find(call.tail + calls[index + 1].head, begin)
            end = len(text) if end < 0 else end
        else:
            end = len(text) - len(call.tail) if call.tail and text.endswith(call.tail) else len(text)
        found.append(Written(call, begin, end))
        at = end + len(call.tail)
    return found


def tool_call_deltas(
    calls: Sequence[ToolCall], pieces: Sequence[str], *, only_first: bool = False
) -> Iterator[list[dict[str, Any]]]:
    """Yield each token's deltas: of each call the name once, then pieces of the arguments. A token outside of them has
    none. `only_first`: the request takes no parallel calls, and the others are dropped, as vLLM does."""
    written = written_calls(calls, "".join(pieces))[: 1 if only_first else None]
    named: set[int] = set()
    place = 0
    for piece in pieces:
        deltas = []
        for index, each in enumerate(written):
            low, high = max(place, each.begin), min(place + len(piece), each.end)
            fragment = piece[low - place : high - place] if high > low else ""
            if index in named:
                if fragment:
                    deltas.append({"index": index, "function": {"arguments": fragment}})
            elif fragment or place <= each.begin < place + len(piece):
                named.add(index)
                function = {"name": each.call.name, "arguments": fragment}
                deltas.append({"id": call_id(), "type": "function", "index": index, "function": function})
        place += len(piece)
        yield deltas


def call_id() -> str:
    return f"chatcmpl-tool-{os.urandom(8).hex()}"


def _call(function: dict[str, Any], head: str, tail: str, finish_reason: str) -> ToolCall:
    schema = function.get("parameters") or {"type": "object", "properties": {}}
    return ToolCall(function["name"], schema, head, tail, finish_reason)


def _mentioned_tools(request: ChatRequest, functions: dict[str, dict[str, Any]]) -> list[str]:
    """In the order of the text; where one name begins with another, the longer counts."""
    if request.messages[-1]["role"] != "user":
        return []
    longest_first = sorted(filter(None, functions), key=len, reverse=True)
    if not longest_first:
        return []
    return re.findall("|".join(map(re.escape, longest_first)), last_user_text(request.messages))


def _quoted(name: str) -> str:
    return msgspec.json.encode(name).decode()
