"""What a request sets itself stays byte for byte; the version gives the rest."""

import json
import threading
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.inference.making import a_head
from tests.inference.prompts.stored import StoredPrompts

from quarterdeck.inference.call import Operation
from quarterdeck.inference.prompts import execution
from quarterdeck.inference.prompts.execution import LARGE_BYTES, PromptExecutor, PromptRequest
from quarterdeck.inference.request import InferenceRequest

VERSION: dict[str, Any] = {
    "messages": [{"role": "user", "content": "Greet {{ name }}"}],
    "model": "m",
    "parameters": {"temperature": 0.5, "max_tokens": 9, "stop": ["x"], "top_p": 1},
    "response_format": {"type": "json_object"},
    "tools": [{"type": "function", "function": {"name": "f"}}],
    "tool_choice": "auto",
}

_own = st.fixed_dictionaries(
    {},
    optional={
        "model": st.sampled_from(["other", "m"]),
        "temperature": st.sampled_from([0, 0.0, 1.5]),
        "max_tokens": st.integers(1, 99),
        "max_completion_tokens": st.integers(1, 99),
        "stop": st.sampled_from(["a", ["b", "c"]]),
        "response_format": st.just({"type": "text"}),
        "tools": st.just([{"type": "function", "function": {"name": "own"}}]),
        "seed": st.integers(0, 9),
        "unknown_member": st.sampled_from([1.10, {"b": 1, "a": [None]}, "é"]),
        "stream": st.booleans(),
        "messages": st.lists(st.just({"role": "user", "content": "after"}), max_size=2),
    },
)


async def rendered(body: bytes) -> InferenceRequest:
    stored = StoredPrompts()
    stored.put("greet", VERSION, production=1)
    await stored.load()
    executor = PromptExecutor(stored.catalogue)
    request = executor.decode(Operation.CHAT, body)
    assert isinstance(request, PromptRequest)
    return await executor.render(a_head(), request)


@given(own=_own, name=st.text(max_size=30))
async def test_a_request_keeps_what_it_sets_and_gets_the_rest(own: dict[str, Any], name: str) -> None:
    asked = {**own, "prompt": {"id": "greet", "variables": {"name": name}}}
    found = await rendered(json.dumps(asked).encode())
    sent = msgspec.json.decode(found.body, type=dict[str, msgspec.Raw])
    for member, value in own.items():
        if member != "messages":
            assert bytes(sent[member]) == json.dumps(value).encode()
    made = json.loads(found.body)
    assert made["messages"] == [{"role": "user", "content": f"Greet {name}"}, *own.get("messages", [])]
    assert "prompt" not in made
    for member in ("model", "temperature", "stop", "top_p", "response_format", "tools"):
        expected = VERSION[member] if member in VERSION else VERSION["parameters"][member]
        assert made[member] == own.get(member, expected)
    has_limit = "max_tokens" in own or "max_completion_tokens" in own
    assert made.get("max_tokens") == (own.get("max_tokens") if has_limit else 9)
    assert ("tool_choice" in made) is ("tools" not in own)
    assert found.prompt is not None and found.prompt.text == "greet@1"


async def test_a_rewritten_request_keeps_its_prompt() -> None:
    found = await rendered(b'{"prompt": {"id": "greet", "variables": {"name": "a"}}}')
    assert found.with_members({"seed": 7}).prompt == found.prompt


async def test_large_variables_are_rendered_beside_the_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    threads = []
    plain = execution._rendered

    def noted(*arguments: Any) -> Any:
        threads.append(threading.current_thread() is threading.main_thread())
        return plain(*arguments)

    monkeypatch.setattr(execution, "_rendered", noted)
    for size in (10, LARGE_BYTES):
        found = await rendered(json.dumps({"prompt": {"id": "greet", "variables": {"name": "a" * size}}}).encode())
        assert json.loads(found.body)["messages"][0]["content"] == "Greet " + "a" * size
    assert threads == [True, False]


@pytest.mark.parametrize("has_messages", [True, False])
async def test_functions_replace_the_tools_of_a_version(has_messages: bool) -> None:
    asked: dict[str, Any] = {"functions": [{"name": "own"}], "prompt": {"id": "greet", "variables": {"name": "A"}}}
    if has_messages:
        asked |= {"model": "m", "messages": [{"role": "user", "content": "after"}]}
    found = await rendered(json.dumps(asked).encode())
    made = json.loads(found.body)
    assert found.calls_functions
    assert made["tools"] == [{"type": "function", "function": {"name": "own"}}]
    assert "tool_choice" not in made and "functions" not in made
