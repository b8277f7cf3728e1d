"""A chat completion as a message of Anthropic's. Pure."""

from typing import Any

import msgspec

from quarterdeck.protocol.usage import Counts, parse_usage

MESSAGE_ID = "msg_"
STOP_REASONS = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "function_call": "tool_use",
    "content_filter": "refusal",
}
"""By chat's finish reason."""


class Function(msgspec.Struct, frozen=True):
    name: str | None = None
    arguments: str | None = None


class Call(msgspec.Struct, frozen=True):
    """A call of a tool, or a piece of one in a stream."""

    index: int = 0
    id: str | None = None
    function: Function = Function()


class Said(msgspec.Struct, frozen=True):
    """A chat's message, or a piece of one in a stream."""

    content: str | None = None
    refusal: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[Call] | None = None

    @property
    def thoughts(self) -> str:
        return self.reasoning or self.reasoning_content or ""

    @property
    def text(self) -> str:
        return self.content or self.refusal or ""


class Choice(msgspec.Struct, frozen=True):
    message: Said | None = None
    delta: Said | None = None
    finish_reason: str | None = None
    stop_reason: Any = None
    """vLLM's: the stop sequence, or the token, that ended the text."""


class Chat(msgspec.Struct, frozen=True):
    """A chat completion, or a chunk of one: what a message needs of it."""

    id: str = ""
    model: str = ""
    choices: list[Choice] = []
    usage: Counts | None = None


class Stop(msgspec.Struct, frozen=True):
    """Why a message ended."""

    stop_reason: str
    stop_sequence: str | None = None


decode_chat = msgspec.json.Decoder(Chat).decode


def message(body: bytes, *, shows_thoughts: bool) -> bytes:
    """The message of a chat completion. Raises msgspec.DecodeError (ValidationError) if it is no chat completion."""
    chat = decode_chat(body)
    choice = chat.choices[0] if chat.choices else Choice()
    said = choice.message or Said()
    content: list[dict[str, object]] = []
    if said.thoughts and shows_thoughts:
        # Only Anthropic's own thoughts are signed.
        content.append({"type": "thinking", "thinking": said.thoughts, "signature": ""})
    if said.text:
        content.append({"type": "text", "text": said.text})
    for call in said.tool_calls or ():
        content.append({**tool_use(call), "input": arguments(call.function.arguments)})
    stop = stop_of(choice, calls=bool(said.tool_calls))
    return msgspec.json.encode(
        {**begun(chat), "content": content, **msgspec.structs.asdict(stop), "usage": usage(chat.usage)}
    )


def begun(chat: Chat) -> dict[str, object]:
    """The members of a message that are known when it begins."""
    return {
        "id": MESSAGE_ID + chat.id.removeprefix("chatcmpl-"),
        "type": "message",
        "role": "assistant",
        "model": chat.model,
    }


def tool_use(call: Call) -> dict[str, object]:
    """A `tool_use` block without its input."""
    return {"type": "tool_use", "id": call.id or "", "name": call.function.name or ""}


def arguments(text: str | None) -> object:
    """A call's arguments. Those that are no JSON object, which a model may write, stand under `arguments`: the type of
    a block's input is an object."""
    try:
        value = msgspec.json.decode(text or "{}")
    except (msgspec.DecodeError, RecursionError):
        value = None
    return value if isinstance(value, dict) else {"arguments": text}


def stop_of(choice: Choice, *, calls: bool) -> Stop:
    """`calls`: the message calls tools. Engines say `stop` where the request named the tool to call."""
    reason = STOP_REASONS.get(choice.finish_reason or "", "end_turn")
    if reason == "end_turn" and calls:
        return Stop("tool_use")
    if reason == "end_turn" and isinstance(choice.stop_reason, str):
        return Stop("stop_sequence", choice.stop_reason)
    return Stop(reason)


def usage(counts: Counts | None) -> dict[str, int]:
    """Anthropic's counts: `input_tokens` are those that were not read from the cache."""
    found = None if counts is None else parse_usage(counts)
    if found is None:
        return {"input_tokens": 0, "output_tokens": 0}
    return {
        "input_tokens": found.input - found.cached,
        "output_tokens": found.output,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": found.cached,
    }
