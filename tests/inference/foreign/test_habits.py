"""Every habit of other servers, whole and streamed, alone and beside a sound endpoint.

The caller gets OpenAI's answer, or an error that doesn't blame it for the gateway's configuration.
"""

import json
from typing import Any

import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from tests.inference.bench import Bench
from tests.inference.foreign.habits import ROWS, Row
from tests.inference.foreign.hosted_server import TEXT, Habit, serving
from tests.inference.foreign.more_habits import MORE_ROWS
from tests.inference.making import CHAT, an_endpoint
from tests.inference.reading import read
from tests.net.upstream import Upstream

from quarterdeck.errors import APIError
from quarterdeck.inference.call import Reply
from quarterdeck.inference.endpoints.sources import StaticEndpoints
from quarterdeck.protocol import sse
from quarterdeck.settings.live import Live
from quarterdeck.settings.loading import parse

ASKED = {
    **CHAT,
    "max_completion_tokens": 3,
    "metadata": {"session_id": "s1", "purpose": "test"},
    "cache": {"no-store": True},
    "top_k": 7,
    "user": "u",
}
ALL_ROWS = ROWS | MORE_ROWS
STREAM_ASKED = {**ASKED, "stream": True}


async def ask(bench: Bench, asked: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The outcome as `habits` words it, and the answer's message."""
    try:
        reply = await bench.ask(asked)
    except APIError as error:
        return f"{error.status} {error.code}", {"error": error}
    if reply.stream is None:
        return "ok", whole_message(reply)
    try:
        return streamed_message(await read(reply.stream))
    finally:
        await reply.stream.aclose()


def whole_message(reply: Reply) -> dict[str, Any]:
    assert dict(reply.headers)[b"content-type"] == b"application/json"
    answer = sse.parse_json(reply.body)
    assert answer is not None
    ChatCompletion.model_validate(answer)
    assert answer["object"] == "chat.completion"
    (choice,) = answer["choices"]
    assert choice["index"] == 0
    return {**choice["message"], "finish_reason": choice["finish_reason"]}


def streamed_message(said: bytes) -> tuple[str, dict[str, Any]]:
    """Join a stream as a client of OpenAI's does, which adds up whatever the fragments say."""
    message: dict[str, Any] = {"finish_reason": None, "tool_calls": []}
    ids: set[str] = set()
    events = list(sse.events(said))
    for event in events:
        if event.startswith(b":"):
            continue
        assert event.startswith(b"data: ")
        assert event.count(b"\n") == 2
        if event == sse.DONE:
            assert event is events[-1]
            break
        chunk = sse.parse(event)
        assert chunk is not None, event
        if "error" in chunk:
            assert event == events[-1], "nothing follows an error"
            return f"event {chunk['error']['code']}", message
        ChatCompletionChunk.model_validate(chunk)
        ids.add(chunk["id"])
        (choice,) = chunk["choices"]
        assert choice["index"] == 0
        for name, value in choice["delta"].items():
            if name == "tool_calls":
                _join_calls(message["tool_calls"], value)
            elif isinstance(value, str):
                message[name] = message.get(name, "") + value
        if choice["finish_reason"]:
            assert message["finish_reason"] is None, "a choice finishes once"
            message["finish_reason"] = choice["finish_reason"]
    else:
        pytest.fail("neither an error nor [DONE]")
    assert len(ids) == 1
    return "ok", message


def _join_calls(calls: list[dict[str, Any]], fragments: list[dict[str, Any]]) -> None:
    for fragment in fragments:
        if fragment["index"] == len(calls):
            calls.append({"id": "", "type": "", "function": {"name": "", "arguments": ""}})
        call = calls[fragment["index"]]
        call["id"] += fragment.get("id") or ""
        call["type"] += fragment.get("type") or ""
        for name, value in fragment.get("function", {}).items():
            call["function"][name] += value


def cases() -> list[Any]:
    """Each row whole and streamed, alone and beside a sound endpoint; of more rows only those that may move to it."""
    found = []
    for name, row in ALL_ROWS.items():
        for is_stream, outcome in ((False, row.whole), (True, row.stream)):
            counts = (1, 2) if name in ROWS or outcome != "ok" else (1,)
            word = "stream" if is_stream else "whole"
            found += [pytest.param(row, is_stream, count, id=f"{name}-{word}-{count}") for count in counts]
    return found


@pytest.mark.parametrize(("row", "is_stream", "count"), cases())
async def test_a_habit_of_another_server_has_its_outcome(bench: Bench, row: Row, is_stream: bool, count: int) -> None:
    outcome = row.stream if is_stream else row.whole
    async with Upstream(serving(row.habit)) as hosted, Upstream(serving(Habit())) as sound:
        _add(bench, hosted, row.habit)
        if count == 2:
            bench.listed.endpoints.append(an_endpoint("sound", url=sound.url, kind="openai", upstream_model="up"))
        got, message = await ask(bench, STREAM_ASKED if is_stream else ASKED)
        moved = count == 2 and row.moves and not outcome.startswith(("ok", "event"))
        assert got == ("ok" if moved else outcome), message
        record = await bench.record()
        assert [each.endpoint for each in record.attempts] == ["hosted"] + ["sound"] * moved
        for seen in hosted.requests:
            assert not seen.json.keys() & {"cache", "top_k"}
            assert "session_id" not in str(seen.json)
    if got != "ok":
        error = message.get("error")
        assert error is None or (
            "sk-up" not in error.message and "html" not in error.message and "org-" not in error.message
        )
        return
    _check(message, row.habit, record.output_tokens)
    expected = row.usage if not (is_stream and row.usage_of_stream) else row.usage_of_stream
    assert record.usage_source == ("engine" if moved else expected)


def _add(bench: Bench, hosted: Upstream, habit: Habit) -> None:
    """An endpoint of the configuration."""
    endpoint = {"url": hosted.url + habit.prefix, "kind": "openai", "model": "up", "api_key_env": "KEY"}
    config = parse(f"models: [{{name: m, endpoints: [{json.dumps(endpoint)}]}}]")
    (found,) = StaticEndpoints(Live(config), {"KEY": "sk-up"}).all()
    found.id = "hosted"
    bench.listed.endpoints.append(found)


def _check(message: dict[str, Any], habit: Habit, tokens: int) -> None:
    said = habit.message({"role": "assistant", "content": "".join(TEXT[:3])})
    assert message["role"] == "assistant"
    if said.get("tool_calls"):
        assert message["finish_reason"] == "tool_calls"
        (call,) = message["tool_calls"]
        assert call["id"]
        assert (call["type"], call["function"]["name"]) == ("function", "look_up")
        assert json.loads(call["function"]["arguments"]) == {"a": 1}
        return
    assert message["finish_reason"] in ("length", "stop")
    whole = "".join(TEXT)
    assert message["content"] in (whole, "".join(TEXT[:3]))
    if habit.caps and not isinstance(said["content"], list):
        assert message["content"] == "".join(TEXT[:3]), "the cap was read"
    assert tokens > 0
