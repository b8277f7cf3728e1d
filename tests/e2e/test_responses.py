"""Responses on a real model: a forced function call that is answered, three turns, tools of an MCP server; and the same
requests to vLLM's own `/v1/responses`."""

import itertools
import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from tests.e2e.stack import CHAT, CHECKOUT, Stack

pytestmark = pytest.mark.long

WEATHER: Any = {
    "type": "function",
    "name": "get_weather",
    "description": "The weather of a city.",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
        "required": ["city", "days"],
        "additionalProperties": False,
    },
    "strict": True,
}
SAILOR: Any = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 20},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
    },
    "required": ["name", "age"],
    "additionalProperties": False,
}
CALL = {
    "type": "function_call",
    "call_id": "call_1",
    "name": "get_weather",
    "arguments": '{"city": "Bergen", "days": 1}',
}


def test_a_forced_function_call_is_executed_here_and_answered(platform: Stack) -> None:
    client = platform.client()
    asked = client.responses.create(
        model=CHAT,
        input="How will the weather be in Bergen for 3 days?",
        tools=[WEATHER],
        tool_choice={"type": "function", "name": "get_weather"},
        temperature=0,
        max_output_tokens=200,
    )
    (call,) = [item for item in asked.output if item.type == "function_call"]
    arguments = json.loads(call.arguments)
    assert isinstance(arguments["city"], str) and isinstance(arguments["days"], int)
    result: Any = {
        "type": "function_call_output",
        "call_id": call.call_id,
        "output": f"In {arguments['city']} it will rain for {arguments['days']} days, at 7 degrees.",
    }
    answered = client.responses.create(
        model=CHAT, previous_response_id=asked.id, input=[result], temperature=0, max_output_tokens=60
    )
    assert answered.status in ("completed", "incomplete") and answered.output_text
    assert asked.usage is not None and answered.usage is not None
    assert answered.usage.output_tokens > 0
    listed = client.responses.input_items.list(answered.id)
    assert [item.type for item in listed.data] == ["function_call_output"]


def test_three_turns_continue_from_one_another_as_one_chat(platform: Stack) -> None:
    client = platform.client()
    questions = ["Hello, my name is Ada.", "What is the capital of France?", "What is my name?"]
    messages: list[Any] = []
    previous: str | None = None
    for question in questions:
        response = client.responses.create(
            model=CHAT, input=question, previous_response_id=previous, temperature=0, max_output_tokens=40
        )
        messages.append({"role": "user", "content": question})
        chat = client.chat.completions.create(model=CHAT, messages=messages, temperature=0, max_tokens=40)
        assert response.output_text == chat.choices[0].message.content
        assert response.usage is not None and chat.usage is not None
        assert response.usage.input_tokens == chat.usage.prompt_tokens
        messages.append({"role": "assistant", "content": response.output_text})
        previous = response.id
    assert previous is not None
    assert client.responses.retrieve(previous).previous_response_id is not None


@pytest.fixture
def calculator(platform: Stack) -> Iterator[str]:
    """The label of an MCP server, of the official SDK, that the platform's configuration lists."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    path = platform.folder / "quarterdeck.yaml"
    before = path.read_text()
    server = CHECKOUT / "tests" / "tools" / "mcp_server.py"
    process = subprocess.Popen([sys.executable, str(server), "streamable-http", str(port)])
    try:
        platform.wait(lambda: _listens(port))
        tools = {"tools": {"mcp_servers": [{"label": "calc", "url": f"http://127.0.0.1:{port}/mcp"}]}}
        _write(path, before + json.dumps(tools)[1:-1] + "\n")
        yield "calc"
    finally:
        _write(path, before)
        process.terminate()
        process.wait(30)


def _write(path: Path, text: str) -> None:
    scratch = path.with_suffix(".new")
    scratch.write_text(text)
    scratch.replace(path)


def _listens(port: int) -> bool | None:
    with socket.socket() as probe:
        return True if probe.connect_ex(("127.0.0.1", port)) == 0 else None


def test_a_tool_of_an_mcp_server_is_called_by_the_platform(platform: Stack, calculator: str) -> None:
    client = platform.client()

    def ask() -> Any:
        try:
            return client.responses.create(
                model=CHAT,
                input="What is 2 plus 3?",
                tools=[{"type": "mcp", "server_label": calculator, "require_approval": "never"}],
                tool_choice={"type": "mcp", "server_label": calculator, "name": "add"},
                temperature=0,
                max_output_tokens=120,
            )
        except openai.BadRequestError as error:
            assert calculator in error.message, error  # the configuration is read once a second
            return None

    response = platform.wait(ask)
    assert [item.type for item in response.output][:2] == ["mcp_list_tools", "mcp_call"]
    call = next(item for item in response.output if item.type == "mcp_call")
    numbers = json.loads(call.arguments)
    assert call.output == f"sum={numbers['a'] + numbers['b']}"
    assert response.usage.output_tokens > 0


CASES: dict[str, dict[str, Any]] = {
    "a text": {"input": "What is the capital of France?"},
    "instructions": {"input": "What is the capital of France?", "instructions": "Answer in one word."},
    "a conversation": {
        "input": [
            {"role": "user", "content": "Hi, I am Ada."},
            {"role": "assistant", "content": "Hello Ada."},
            {"role": "user", "content": "What is my name?"},
        ]
    },
    "a schema": {
        "input": "Describe a sailor as JSON.",
        "text": {"format": {"type": "json_schema", "name": "sailor", "strict": True, "schema": SAILOR}},
    },
    "a forced function": {
        "input": "How will the weather be in Bergen for 3 days?",
        "tools": [WEATHER],
        "tool_choice": {"type": "function", "name": "get_weather"},
    },
    "a function's output": {
        "input": [
            {"role": "user", "content": "Weather in Bergen?"},
            CALL,
            {"type": "function_call_output", "call_id": "call_1", "output": "7 degrees, rain"},
        ],
        "tools": [WEATHER],
    },
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_vllms_own_responses_agree(platform: Stack, case: str, stream: bool) -> None:
    body = {"model": CHAT, "temperature": 0, "max_output_tokens": 60, "store": False, "stream": stream, **CASES[case]}
    with platform.http() as http:
        ours = _answer(http.post("/v1/responses", json=body), stream=stream)
    with httpx.Client(base_url=platform.replica(CHAT), timeout=300, trust_env=False) as http:
        theirs = _answer(http.post("/v1/responses", json=body), stream=stream)
    assert ours == theirs


def _answer(response: httpx.Response, *, stream: bool) -> dict[str, Any]:
    """Text, usage and the order of events. A run of equal events counts once: an engine sends several tokens in one."""
    assert response.status_code == 200, response.text
    events = []
    found = response.json() if not stream else {}
    for line in response.text.splitlines() if stream else ():
        if line.startswith("data: {"):
            event = json.loads(line.removeprefix("data: "))
            events.append(event["type"])
            found = event.get("response") or found
    usage = found["usage"]
    return {
        "status": found["status"],
        "output": [(item["type"], _text(item)) for item in found["output"]],
        "usage": [usage[name] for name in ("input_tokens", "output_tokens", "total_tokens")],
        "events": [kind for kind, _ in itertools.groupby(events)],
    }


def _text(item: dict[str, Any]) -> Any:
    """Arguments as values: vLLM writes those of a stream anew, so that they differ from what it has streamed."""
    if item["type"] == "function_call":
        return json.loads(item["arguments"])
    return "".join(part.get("text", "") for part in item.get("content") or [])


def test_a_stream_that_is_cut_ends_as_incomplete_which_vllm_calls_completed(platform: Stack) -> None:
    body = {"model": CHAT, "input": "Tell a long story.", "temperature": 0, "max_output_tokens": 8, "store": False}
    with platform.http() as http:
        ours = _answer(http.post("/v1/responses", json={**body, "stream": True}), stream=True)
    with httpx.Client(base_url=platform.replica(CHAT), timeout=300, trust_env=False) as http:
        theirs = _answer(http.post("/v1/responses", json={**body, "stream": True}), stream=True)
    assert (ours["status"], ours["events"].pop()) == ("incomplete", "response.incomplete")
    assert (theirs["status"], theirs["events"].pop()) == ("incomplete", "response.completed")
    assert ours == theirs


def test_a_background_response_is_polled_to_its_end(platform: Stack) -> None:
    client = platform.client()
    question: dict[str, Any] = {"input": "What is the capital of France?", "temperature": 0, "max_output_tokens": 40}
    queued = client.responses.create(model=CHAT, background=True, **question)
    assert queued.status in ("queued", "in_progress")

    def ended() -> Any:
        found = client.responses.retrieve(queued.id)
        return found if found.status not in ("queued", "in_progress") else None

    response = platform.wait(ended, 300)
    foreground = client.responses.create(model=CHAT, **question)
    assert response.background is True
    assert (response.status, response.output_text) == (foreground.status, foreground.output_text)
    assert response.usage is not None and foreground.usage is not None
    assert response.usage.output_tokens == foreground.usage.output_tokens > 0
