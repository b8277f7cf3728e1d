"""Tool calls: which tool is called, the text that a model would write for the call, and its stream deltas."""

import os
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

    def generated_text(self, start: int) -> str:
        """Return the text as the model writes it. Raises VLLMError if the schema cannot be satisfied."""
        try:
            arguments = example_value(self.schema, start)
        except UnsatisfiableError as error:
            raise invalid_request(
                f"The parameters of the tool '{self.name}' can't be satisfied: {error}", "tools"
            ) from error
        return self.head + msgspec.json.encode(arguments).decode() + self.tail

    def arguments(self, text: str) -> str:
        """Return the arguments in the generated text so far, complete or not."""
        return text[len(self.head) :].removesuffix(self.tail) if self.tail else text[len(self.head) :]


def requested_tool_call(request: ChatRequest, auto: bool) -> ToolCall | None:
    """Return the call that the request asks for. With `auto`, a tool that the last user message names is called."""
    choice = request.tool_choice
    if not request.tools or choice == "none":
        return None
    functions: dict[str, dict[str, Any]] = {tool["function"]["name"]: tool["function"] for tool in request.tools}
    if isinstance(choice, dict):
        name = choice["function"]["name"]
        return _call(functions[name], "", "", "stop")
    if choice == "required":
        name = _mentioned_tool(request, functions) or next(iter(functions))
        head = f'[{{"name": {_quoted(name)}, "parameters": '
        return _call(functions[name], head, "}]", "tool_calls")
    named = _mentioned_tool(request, functions) if auto else None
    if named is None:
        return None
    head = f'<tool_call>\n{{"name": {_quoted(named)}, "arguments": '
    return _call(functions[named], head, "}\n</tool_call>", "tool_calls")


def tool_call_deltas(call: ToolCall, pieces: Sequence[str]) -> Iterator[dict[str, Any] | None]:
    """Yield each token's delta: the name once, then pieces of the arguments; None for tokens outside of them."""
    begin = len(call.head)
    whole = "".join(pieces)
    end = len(whole) - len(call.tail) if whole.endswith(call.tail) else len(whole)
    named = False
    place = 0
    for piece in pieces:
        low, high = max(place, begin), min(place + len(piece), end)
        place += len(piece)
        fragment = whole[low:high] if high > low else ""
        if place < begin or (not fragment and (named or place > begin)):
            yield None
        elif named:
            yield {"index": 0, "function": {"arguments": fragment}}
        else:
            named = True
            yield {
                "id": call_id(),
                "type": "function",
                "index": 0,
                "function": {"name": call.name, "arguments": fragment},
            }


def call_id() -> str:
    return f"chatcmpl-tool-{os.urandom(8).hex()}"


def _call(function: dict[str, Any], head: str, tail: str, finish_reason: str) -> ToolCall:
    schema = function.get("parameters") or {"type": "object", "properties": {}}
    return ToolCall(function["name"], schema, head, tail, finish_reason)


def _mentioned_tool(request: ChatRequest, functions: dict[str, dict[str, Any]]) -> str | None:
    if request.messages[-1]["role"] != "user":
        return None
    text = last_user_text(request.messages)
    return next((name for name in functions if name in text), None)


def _quoted(name: str) -> str:
    return msgspec.json.encode(name).decode()
