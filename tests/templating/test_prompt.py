"""From a version and values of its variables to the text or messages of a request."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from quarterdeck.settings.prompts import MAX_BYTES, LabelSpec, PromptSpec
from quarterdeck.templating.errors import RenderError
from quarterdeck.templating.prompt import CompiledPrompt, SpecError
from quarterdeck.templating.variables import VariablesError

CHAT: dict[str, Any] = {
    "messages": [
        {"role": "system", "content": "You speak {{ language }}."},
        {"placeholder": "history"},
        {"role": "user", "content": "{{ question }}"},
    ],
    "examples": [{"input": "1 {+} 1?", "output": '{"n": 2}'}],
    "variables": {
        "language": {"default": "English", "enum": ["English", "Basque"]},
        "history": {"type": "messages", "default": []},
    },
}


def prompt(**fields: Any) -> CompiledPrompt:
    return CompiledPrompt(PromptSpec.model_validate(fields))


def test_messages_examples_placeholders_and_defaults() -> None:
    history = [{"role": "user", "content": "{{ hi }}"}, {"role": "assistant", "content": None, "tool_calls": [{}]}]
    made = prompt(**CHAT).messages({"question": "Why?", "history": history})
    assert made == [
        {"role": "system", "content": "You speak English."},
        {"role": "user", "content": "1 {+} 1?"},
        {"role": "assistant", "content": '{"n": 2}'},
        *history,
        {"role": "user", "content": "Why?"},
    ]


def test_examples_stand_after_the_only_messages_where_all_are_the_systems() -> None:
    made = prompt(messages=[{"role": "system", "content": "s"}], examples=[{"input": "i", "output": "o"}])
    assert [each["content"] for each in made.messages({})] == ["s", "i", "o"]


def test_texts_and_addresses_of_content_parts_are_templates() -> None:
    parts = [
        {"type": "text", "text": "Look at {{ what }}"},
        {"type": "image_url", "image_url": {"url": "{{ address }}", "detail": "low"}},
    ]
    made = prompt(messages=[{"role": "user", "content": parts}]).messages({"what": "it", "address": "data:x"})
    assert made[0]["content"] == [
        {"type": "text", "text": "Look at it"},
        {"type": "image_url", "image_url": {"url": "data:x", "detail": "low"}},
    ]


@pytest.mark.parametrize(
    ("values", "message", "names"),
    [
        ({}, "missing 'question'", ["question"]),
        ({"question": "q", "b": 1, "a": 1}, "unknown 'a', 'b'", ["a", "b"]),
        ({"question": 1}, "'question' must be a string, got an integer", ["question"]),
        ({"question": None}, "'question' must be a string, got null", ["question"]),
        ({"question": "q", "language": "Latin"}, "'language' must be one of 'English', 'Basque'", ["language"]),
        ({"question": "q", "history": ["x"]}, "'history' must be a list of messages", ["history"]),
        ({"c": 1, "language": 3}, "missing 'question'; unknown 'c'; 'language' must be", ["question", "c", "language"]),
    ],
)
def test_every_variable_at_fault_is_named(values: dict[str, Any], message: str, names: list[str]) -> None:
    with pytest.raises(VariablesError, match=message) as refused:
        prompt(**CHAT).messages(values)
    assert refused.value.names == names


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        ("number", [1, 1.5], [True, "1"]),
        ("integer", [1, -(2**70)], [1.0, True, "1"]),
        ("boolean", [True], [1, "true"]),
        ("array", [[], [1]], ["a", {}]),
        ("object", [{}], [[]]),
        ("string", ["", "a"], [1, None]),
    ],
)
def test_types_are_those_of_json(kind: str, good: list[Any], bad: list[Any]) -> None:
    subject = prompt(text="{{ x|tojson }}", variables={"x": {"type": kind}})
    for value in good:
        subject.text({"x": value})
    for value in bad:
        with pytest.raises(VariablesError, match="'x' must be"):
            subject.text({"x": value})


def test_a_default_of_null_makes_a_variable_optional() -> None:
    subject = prompt(text="a{{ x }}b", variables={"x": {"default": None}})
    assert (subject.text({}), subject.text({"x": None}), subject.text({"x": "-"})) == ("ab", "ab", "a-b")


@pytest.mark.parametrize(
    ("text", "without", "with_x"),
    [
        ("a{{ x|default('b') }}", "ab", "a-"),
        ("a{{ x|default('b')|upper }}{{ x|default('c') }}", "aBc", "a--"),
        ("a{% if x is defined %}{{ x }}{% endif %}", "a", "a-"),
        ("{% if x is undefined %}b{% else %}{{ x }}{% endif %}", "b", "-"),
    ],
)
def test_what_a_template_allows_to_be_missing_is_optional(text: str, without: str, with_x: str) -> None:
    assert (prompt(text=text).text({}), prompt(text=text).text({"x": "-"})) == (without, with_x)


@pytest.mark.parametrize(
    "fields",
    [
        {"text": "{{ x|default('b') }}{{ x }}"},
        {"text": "{{ x|upper|default('b') }}"},
        {"text": "{% if x %}{{ x }}{% endif %}"},
        {"text": "{{ x|default('b') }}", "variables": {"x": {}}},
        {"messages": [{"role": "user", "content": "{{ x|default('b') }}"}, {"role": "user", "content": "{{ x }}"}]},
    ],
)
def test_all_else_must_be_given(fields: dict[str, Any]) -> None:
    with pytest.raises(VariablesError, match="missing 'x'"):
        prompt(**fields).declaration.check({})


def test_the_bound_on_the_output_holds_for_all_messages_together() -> None:
    subject = prompt(messages=[{"role": "user", "content": "{{ x }}"}] * 20)
    with pytest.raises(RenderError, match="larger than"):
        subject.messages({"x": "a" * 100_000})


@pytest.mark.parametrize(
    ("spec", "param"),
    [
        ({"text": "{{ x.y }}"}, "text"),
        ({"messages": [{"role": "user", "content": "a"}, {"role": "user", "content": "{{"}]}, "messages[1].content"),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "{{ f() }}"}]}]},
            "messages[0].content[0].text",
        ),
        ({"text": "{{ x }}", "variables": {"x": {"type": "integer", "default": "1"}}}, "variables.x.default"),
        ({"messages": [{"placeholder": "x"}]}, "variables.x"),
        ({"text": "{{ x }}", "variables": {"x": {"type": "messages"}}}, "variables.x"),
        ({"messages": [{"role": "user", "content": "{{ x }}" * 500}] * 8}, "messages[5].content"),
    ],
)
def test_a_version_that_can_not_be_rendered_is_not_stored(spec: dict[str, Any], param: str) -> None:
    with pytest.raises(SpecError) as refused:
        prompt(**spec)
    assert refused.value.param == param


def test_templates_that_take_seconds_to_compile_are_not_stored() -> None:
    parts = [{"type": "text", "text": "{{ x }}"}] * 1000
    with pytest.raises(SpecError, match="at most 3000"):
        prompt(messages=[{"role": "user", "content": parts}])
    plain = [{"type": "text", "text": "x"}] * 1000
    prompt(messages=[{"role": "user", "content": plain}])


@pytest.mark.parametrize(
    "spec",
    [
        {},
        {"text": "a", "messages": [{"role": "user", "content": "b"}]},
        {"text": "a", "examples": [{"input": "a", "output": "b"}]},
        {"messages": []},
        {"messages": [{"role": "user"}]},
        {"messages": [{"role": "user", "content": "a", "placeholder": "x"}]},
        {"messages": [{"role": "wizard", "content": "a"}]},
        {"text": "a", "parameters": {"model": "x"}},
        {"text": "a", "parameters": {"stream": True}},
        {"text": "a", "parameters": {"chat_template": "x"}},
        {"text": "a", "variables": {"_x": {}}},
        {"text": "a\0b"},
        {"text": "a\ud800"},
        {"text": "a", "parameters": {"temperature": float("nan")}},
        {"text": "a", "variables": {"x": {"type": "number", "default": float("inf")}}},
        {"text": "a", "response_format": {"a\0": 1}},
        {"text": "a" * MAX_BYTES},
        {"text": "a", "parameters": {"temperature": float("inf")}},
        {"text": "a", "response_format": {"type": [float("nan")]}},
        {"text": "{{ v }}", "variables": {"v": {"type": "number", "default": float("nan")}}},
        {"text": "{{ v }}", "variables": {"v": {"type": "number", "enum": [1, float("inf")]}}},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "a", "x": float("nan")}]}]},
        {"messages": [{"role": "user", "content": "a"}], "tool_choice": "auto"},
        {"text": "a", "surprise": 1},
    ],
    ids=lambda spec: ",".join(spec) if len(str(spec)) < 99 else "large",
)
def test_a_version_of_another_shape_is_refused(spec: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        PromptSpec.model_validate(spec)


@pytest.mark.parametrize(
    "label",
    [
        {},
        {"version": 1, "split": [{"version": 1}, {"version": 2}]},
        {"split": [{"version": 1}]},
        {"split": [{"version": 1}, {"version": 1}]},
        {"split": [{"version": 1}, {"version": 2, "weight": -1}]},
        {"split": [{"version": 1, "weight": 0}, {"version": 2, "weight": 0}]},
        {"version": 1, "guard": {"max_error_rate": 0.1}},
        {"split": [{"version": 1}, {"version": 2}], "guard": {}},
    ],
)
def test_a_label_of_another_shape_is_refused(label: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        LabelSpec.model_validate(label)


@given(
    st.fixed_dictionaries(
        {"text": st.text(max_size=20).filter(lambda text: "\0" not in text)},
        optional={
            "model": st.sampled_from(["a", "b"]),
            "parameters": st.dictionaries(st.sampled_from(["temperature", "seed"]), st.integers(0, 3)),
            "variables": st.dictionaries(
                st.sampled_from(["x", "y"]),
                st.fixed_dictionaries({}, optional={"default": st.none() | st.text("ab"), "type": st.just("string")}),
            ),
        },
    )
)
def test_content_and_digest_survive_a_round_trip(fields: dict[str, Any]) -> None:
    spec = PromptSpec.model_validate(fields)
    again = PromptSpec.model_validate(spec.content())
    assert (again.content(), again.digest) == (spec.content(), spec.digest)
    assert CompiledPrompt(spec).declaration.names == CompiledPrompt(again).declaration.names
