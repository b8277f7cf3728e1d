"""What the chunks of a chat completion add to a response: its steps. Pure.

A step is a small list, so that the steps of an answer can be stored and its events be made again: `["text", delta,
logprobs]`, `["reasoning", delta]`, `["refusal", delta]`, `["call", index, call id, name, arguments]`.

Those of tools that the platform executes are made by `execution`: `["list", label]`, `["listed", label, tools, error]`,
`["mcp", index, label, name, arguments, approval request]`, `["called"]` (the engine's answer is complete),
`["mcp_result", index, output, error]`, `["approve", label, name, arguments]`, `["turn", number, usage]` (a turn is
complete).

Those of background responses that were interrupted are made by `background`: `["cut"]` (open items are left incomplete,
and their turn begins anew), `["pause"]` (an engine call has failed and left its record:
the next one continues its text).
"""

from typing import Any

import msgspec

from quarterdeck import ids
from quarterdeck.protocol.usage import Usage, parse_usage

Step = list[Any]


class Function(msgspec.Struct):
    name: str | None = None
    arguments: str | dict[str, Any] | None = None


class ToolCall(msgspec.Struct):
    index: int | None = None
    id: str | None = None
    function: Function | None = None


class Delta(msgspec.Struct):
    """The delta of a chunk, or the message of a whole answer."""

    content: str | None = None
    refusal: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[ToolCall] | None = None


class TopLogprob(msgspec.Struct):
    token: str
    logprob: float
    bytes: list[int] | None = None


class Logprob(TopLogprob):
    top_logprobs: list[TopLogprob] | None = None


class Logprobs(msgspec.Struct):
    content: list[Logprob] | None = None


class Choice(msgspec.Struct):
    index: int = 0
    delta: Delta | None = None
    message: Delta | None = None
    finish_reason: str | None = None
    logprobs: Logprobs | None = None


class Chunk(msgspec.Struct):
    """A chunk of a chat completion, or a whole one."""

    id: str = ""
    model: str = ""
    choices: list[Choice] = []  # msgspec copies it
    usage: Any = None
    error: Any = None


decode_chunk = msgspec.json.Decoder(Chunk).decode


def steps_of(chunk: Chunk) -> list[Step]:
    """The steps of a chunk, in the order in which a model says them: reasoning, text, calls."""
    steps: list[Step] = []
    for choice in chunk.choices:
        said = choice.delta or choice.message
        if choice.index != 0 or said is None:
            continue
        if reasoning := said.reasoning or said.reasoning_content:
            steps.append(["reasoning", reasoning])
        logprobs = _logprobs(choice.logprobs)
        if said.content or logprobs:
            steps.append(["text", said.content or "", logprobs])
        if said.refusal:
            steps.append(["refusal", said.refusal])
        for position, call in enumerate(said.tool_calls or ()):
            function = call.function or Function()
            arguments = function.arguments or ""
            if not isinstance(arguments, str):  # some servers send the object itself
                arguments = msgspec.json.encode(arguments).decode()
            index = position if call.index is None else call.index
            steps.append(["call", index, call.id or "", function.name or "", arguments])
    return steps


def finish_reason_of(chunk: Chunk) -> str | None:
    return next((each.finish_reason for each in chunk.choices if each.index == 0 and each.finish_reason), None)


def usage_of(chunk: Chunk) -> Usage | None:
    return parse_usage(chunk.usage) if chunk.usage else None


def new_call_id() -> str:
    """For a call to which the engine gave none."""
    return ids.object_id("call")


def _logprobs(found: Logprobs | None) -> list[dict[str, Any]]:
    if found is None or not found.content:
        return []
    return [
        {**_token(each), "top_logprobs": [_token(other) for other in each.top_logprobs or ()]} for each in found.content
    ]


def _token(each: TopLogprob) -> dict[str, Any]:
    octets = list(each.token.encode("utf-8", "surrogatepass")) if each.bytes is None else each.bytes
    return {"token": each.token, "logprob": each.logprob, "bytes": octets}
