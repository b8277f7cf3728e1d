"""A version as Langfuse has it and a version of ours, one from the other."""

import re
from typing import Any

import pytest

from quarterdeck.resources.prompts.langfuse_content import to_langfuse, to_quarterdeck
from quarterdeck.resources.prompts.langfuse_version import LangfuseContent
from quarterdeck.settings.prompts import PromptSpec
from quarterdeck.templating.mustache import UnmappedError

FULL: dict[str, Any] = {
    "messages": [
        {"role": "system", "content": "Be {{ tone }}."},
        {"placeholder": "history"},
        {"role": "user", "content": "{{question}}"},
    ],
    "variables": {
        "tone": {"default": "kind", "enum": ["kind", "short"]},
        "history": {"type": "messages", "default": []},
        "question": {"description": "of the user"},
    },
    "model": "m",
    "parameters": {"temperature": 0.5, "stop": ["x"], "seed": 3},
    "response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": {"type": "object"}}},
    "tools": [{"type": "function", "function": {"name": "f"}}],
    "tool_choice": "auto",
}


@pytest.mark.parametrize("content", [FULL, {"text": "Hi {{x}}"}, {"text": "{{ '{%' }}{{x}}"}])
def test_a_version_of_ours_comes_back_from_langfuse_equal(content: dict[str, Any]) -> None:
    spec = PromptSpec.model_validate(content)
    there = to_langfuse(spec)
    back, notes = to_quarterdeck(there)
    assert (back.digest, notes) == (spec.digest, ())
    assert to_langfuse(back).fingerprint == there.fingerprint


def test_parameters_stand_where_langfuses_users_read_them() -> None:
    config = to_langfuse(PromptSpec.model_validate(FULL)).config
    assert (config["model"], config["temperature"], config["tools"]) == ("m", 0.5, FULL["tools"])
    assert config["response_format"] == FULL["response_format"]


def test_a_server_that_writes_whole_numbers_without_a_point_has_the_same_version() -> None:
    ours, theirs = (LangfuseContent("a", {"temperature": number}) for number in (1.0, 1))
    assert ours.fingerprint == theirs.fingerprint
    assert LangfuseContent("a", None).fingerprint == LangfuseContent("a", {}).fingerprint


def test_a_placeholder_of_langfuse_is_a_variable_of_messages() -> None:
    prompt = [{"type": "placeholder", "name": "history"}, {"type": "chatmessage", "role": "user", "content": "{{x}}"}]
    spec, _ = to_quarterdeck(LangfuseContent(prompt))
    assert spec.content() == {
        "messages": [{"placeholder": "history"}, {"role": "user", "content": "{{x}}"}],
        "variables": {"history": {"type": "messages"}},
    }


@pytest.mark.parametrize(
    ("config", "notes"),
    [
        ({"language": "en", "model": "m"}, ("config.language is not used here",)),
        ([1], ("config is not an object and is not used here",)),
        ("text", ("config is not an object and is not used here",)),
        ({}, ()),
        (None, ()),
    ],
)
def test_what_of_config_is_not_used_is_said(config: Any, notes: tuple[str, ...]) -> None:
    assert to_quarterdeck(LangfuseContent("a", config))[1] == notes


@pytest.mark.parametrize(
    ("prompt", "config", "reason"),
    [
        ([{"role": "tool", "content": "a"}], None, "messages.0.role"),
        ([{"role": "user", "content": "{{a-b}}"}], None, "messages[0].content: 'a-b' can't be the name of a variable"),
        ([], None, "messages"),
        ("a", {"model": 3}, "model: "),
        ("a", {"tools": [{}]}, "`tools` belong to a prompt with `messages`"),
        ("a", {"quarterdeck": {"variables": {"x": {"type": "number", "default": "text"}}}}, "variables.x.default"),
        ("a" * 300_000, None, "a version has at most"),
    ],
)
def test_a_version_of_langfuse_without_an_equal_is_refused_with_a_reason(prompt: Any, config: Any, reason: str) -> None:
    with pytest.raises(UnmappedError, match=re.escape(reason)):
        to_quarterdeck(LangfuseContent(prompt, config))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}]}]}, "without content parts"),
        ({"messages": [{"role": "user", "content": "a", "name": "ann"}]}, "messages[0].name"),
        ({"messages": [{"role": "user", "content": "{% if a %}b{% endif %}"}]}, "messages[0].content: line 1"),
        ({"messages": [{"role": "user", "content": "a"}], "examples": [{"input": "{{", "output": "b"}]}, "examples[0]"),
    ],
)
def test_a_version_of_ours_without_an_equal_is_refused_with_a_reason(content: dict[str, Any], reason: str) -> None:
    with pytest.raises(UnmappedError, match=re.escape(reason)):
        to_langfuse(PromptSpec.model_validate(content))
