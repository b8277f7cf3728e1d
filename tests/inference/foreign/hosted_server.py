"""A simulated hosted server: a fake at the edge, with one habit of one vendor at a time.

It answers chats over a real socket as OpenAI does, except for its `Habit`: what it reads of a request, what it refuses,
where it puts things in an answer, how it writes a stream, how it words an error. Habits are those that the vendors'
documentation and other projects' issues describe.
"""

import gzip
import json
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from tests.net.upstream import Peer, Seen

TEXT = ["Hel", "lo ", "wor", "ld"]
USAGE = {"prompt_tokens": 7, "completion_tokens": 4, "total_tokens": 11}
MEMBERS = frozenset(
    {
        *(
            "model",
            "messages",
            "prompt",
            "input",
            "stream",
            "stream_options",
            "max_tokens",
            "temperature",
            "n",
            "tools",
        ),
        *("tool_choice", "seed", "stop", "top_p", "response_format", "encoding_format"),
    }
)
"""What a strict server knows."""

Json = dict[str, Any]
Refusal = Callable[[Seen, Json], "Answer | None"]


@dataclass(frozen=True)
class Answer:
    """A raw response."""

    status: int
    body: bytes
    content_type: str = "application/json"
    headers: tuple[str, ...] = ()

    def raw(self) -> bytes:
        head = [f"HTTP/1.1 {self.status} X", f"content-length: {len(self.body)}", *self.headers]
        if self.content_type:
            head.append(f"content-type: {self.content_type}")
        return "\r\n".join(head).encode() + b"\r\n\r\n" + self.body


def as_is(answer: Json) -> Any:
    return answer


def chunks_as_they_are(chunks: list[Json]) -> Sequence[Any]:
    return chunks


def as_events(chunks: Sequence[Any]) -> bytes:
    """As OpenAI writes a stream."""
    return b"".join([b"data: " + dump(each) + b"\n\n" for each in chunks]) + b"data: [DONE]\n\n"


@dataclass(frozen=True)
class Habit:
    """How a server differs from OpenAI's."""

    refuse: Refusal = lambda seen, body: None
    """An answer in place of the usual one."""
    whole: Callable[[Json], Any] = as_is
    """Changes a whole answer."""
    chunks: Callable[[list[Json]], Sequence[Any]] = chunks_as_they_are
    """Changes the chunks of a stream."""
    write: Callable[[Sequence[Any]], bytes] = as_events
    """Writes the chunks of a stream."""
    content_type: str = "application/json"
    stream_type: str = "text/event-stream"
    headers: tuple[str, ...] = ()
    encode: Callable[[bytes], bytes] = bytes
    pieces: int = 0
    """Bytes of one write. 0: all at once."""
    caps: tuple[str, ...] = ("max_tokens", "max_completion_tokens")
    """The members that it reads as a cap. Others it ignores."""
    path: str = "/v1/chat/completions"
    prefix: str = ""
    """The path in the configuration."""
    ends_body: bool = True
    """Whether the chunked body of a stream has its end."""
    includes_usage: bool = True
    """Whether a stream that asks for it has usage."""
    message: Callable[[Json], Json] = as_is
    """Changes the message of the answer, before it is streamed or sent."""


def dump(value: Any) -> bytes:
    return json.dumps(value).encode()


def failing(status: int, body: Any, *headers: str) -> Refusal:
    """Every request is refused like this."""
    said = body if isinstance(body, bytes) else dump(body)
    return lambda seen, asked: Answer(status, said, headers=headers)


def strict(words: Callable[[list[str]], tuple[int, Any]], known: frozenset[str] = MEMBERS) -> Refusal:
    """Members that it doesn't know are refused; `words` makes status and body of their names."""

    def refuse(seen: Seen, asked: Json) -> Answer | None:
        unknown = sorted(asked.keys() - known)
        if not unknown:
            return None
        status, body = words(unknown)
        return Answer(status, dump(body))

    return refuse


def answer_to(asked: Json, habit: Habit) -> Json:
    words = TEXT
    caps = [asked[name] for name in habit.caps if asked.get(name) is not None]
    if caps:
        words = words[: min(caps)]
    finish = "stop" if len(words) == len(TEXT) else "length"
    message = habit.message({"role": "assistant", "content": "".join(words), "refusal": None})
    if message.get("tool_calls"):
        finish = "tool_calls"
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1700000000,
        "model": asked["model"],
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": finish}],
        "usage": {**USAGE, "completion_tokens": len(words), "total_tokens": 7 + len(words)},
    }


def chunks_of(answer: Json, *, with_usage: bool) -> list[Json]:
    head = {**answer, "object": "chat.completion.chunk"}
    usage = head.pop("usage")
    choice = head.pop("choices")[0]
    message = choice["message"]
    deltas: list[Json] = [{"role": "assistant", "content": ""}]
    content = message.get("content")
    if isinstance(content, list):
        deltas += [{"content": [part]} for part in content]
    elif content:
        deltas += [{"content": content[at : at + 3]} for at in range(0, len(content), 3)]
    for name in ("reasoning_content", "reasoning", "refusal"):
        if message.get(name):
            deltas.append({name: message[name]})
    for at, call in enumerate(message.get("tool_calls") or ()):
        function = call["function"]
        half = len(function["arguments"]) // 2
        first = {**function, "arguments": function["arguments"][:half]}
        deltas.append({"tool_calls": [{"index": at, **call, "function": first}]})
        deltas.append({"tool_calls": [{"index": at, "function": {"arguments": function["arguments"][half:]}}]})
    found = [{**head, "choices": [{"index": 0, "delta": each, "finish_reason": None}]} for each in deltas]
    found.append({**head, "choices": [{"index": 0, "delta": {}, "finish_reason": choice["finish_reason"]}]})
    if with_usage:
        found.append({**head, "choices": [], "usage": usage})
    return found


def serving(habit: Habit) -> Callable[[Peer], Any]:
    """A script for an `Upstream`: the server with this habit."""

    async def script(peer: Peer) -> None:
        while True:
            seen = await peer.request()
            asked = seen.json
            if seen.path.partition("?")[0] != habit.path:
                await peer.say(Answer(404, b"<html>Not Found</html>", "text/html").raw())
                continue
            if (refused := habit.refuse(seen, asked)) is not None:
                await peer.say(refused.raw())
                continue
            answer = answer_to(asked, habit)
            if not asked.get("stream"):
                changed = habit.whole(deepcopy(answer))
                body = habit.encode(changed if isinstance(changed, bytes) else dump(changed))
                await peer.say(Answer(200, body, habit.content_type, habit.headers).raw())
                continue
            options = asked.get("stream_options") or {}
            with_usage = habit.includes_usage and bool(options.get("include_usage"))
            written = habit.encode(habit.write(habit.chunks(deepcopy(chunks_of(answer, with_usage=with_usage)))))
            step = habit.pieces or max(1, len(written))
            pieces = [written[at : at + step] for at in range(0, len(written), step)]
            head = "\r\n".join(["HTTP/1.1 200 OK", "transfer-encoding: chunked", *habit.headers]).encode()
            if habit.stream_type:
                head += b"\r\ncontent-type: " + habit.stream_type.encode()
            await peer.say(head + b"\r\n\r\n", *[b"%x\r\n%b\r\n" % (len(each), each) for each in pieces])
            if not habit.ends_body:
                return
            await peer.say(b"0\r\n\r\n")

    return script


def zipped(body: bytes) -> bytes:
    return gzip.compress(body)
