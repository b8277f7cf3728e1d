"""Langfuse's templates and ours: what means the same on both sides is translated, all else is refused with a reason."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langfuse.model import TemplateParser

from quarterdeck.settings.prompts import PromptSpec
from quarterdeck.templating.mustache import UnmappedError, from_mustache, to_mustache
from quarterdeck.templating.prompt import CompiledPrompt


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("Hello {{name}} and {{ other }}", "Hello {{name}} and {{ other }}"),
        ("{% if x %}", "{{ '{%' }} if x %}"),
        ("{# no comment #}", "{{ '{#' }} no comment #}"),
        ('{{"a": 1}} {{x}}', "{{ '{{' }}\"a\": 1}} {{x}}"),
        ("an open {{ brace", "an open {{ '{{' }} brace"),
        ("{{}}", "{{ '{{' }}}}"),
        ("{{ if }}", "{{ if }}"),  # a name like any other
    ],
)
def test_text_of_langfuse_renders_the_same_here(theirs: str, ours: str) -> None:
    assert from_mustache(theirs) == ours
    assert to_mustache(ours) == theirs


@pytest.mark.parametrize(
    ("theirs", "reason"),
    [
        ("{{user-name}}", "'user-name' can't be the name of a variable here"),
        ("{{_x}}", "'_x' can't be the name of a variable here"),
        ("{{loop}}", "'loop' can't be the name of a variable here"),
        ("{{true}}", "'true' can't be the name of a variable here"),
        ("{{{x}}}", "braces inside braces"),
        ("a @@@langfusePrompt:name=b|version=1@@@", "it includes another prompt"),
    ],
)
def test_text_of_langfuse_that_has_no_equal_is_refused(theirs: str, reason: str) -> None:
    with pytest.raises(UnmappedError, match=re.escape(reason)):
        from_mustache(theirs)


@pytest.mark.parametrize(
    ("ours", "reason"),
    [
        ("a\n{% for x in y %}{{ x }}{% endfor %}", "line 2: Langfuse has variables only, and this is a loop"),
        ("{% if a %}b{% endif %}", "this is a condition"),
        ("{{ a|upper }}", "this is a filter"),
        ("{{ a['b'] }}", "this is a subscript"),
        ("{{ 3 }}", "this is more than text"),
        ("{# why #}a", "it has a comment"),
        ("{% raw %}{{x}}{% endraw %}", "braces of its text would be variables at Langfuse"),
    ],
)
def test_a_template_that_has_no_equal_at_langfuse_is_refused(ours: str, reason: str) -> None:
    with pytest.raises(UnmappedError, match=re.escape(reason)):
        to_mustache(ours)


def test_white_space_control_and_raw_text_become_what_they_mean() -> None:
    assert to_mustache("a   {{- x -}}   b") == "a{{x}}b"
    assert to_mustache("{% raw %}{%{% endraw %}{{ x }}") == "{%{{x}}"


pieces = ["{{", "}}", "{", "}", "{%", "%}", "{#", "#}", "x", " ", "y1", '"', "-", "'", "\n"]
texts = st.lists(st.sampled_from(pieces)).map("".join)


@given(texts)
def test_langfuses_own_sdk_and_this_gateway_render_the_same_text(text: str) -> None:
    try:
        ours = from_mustache(text)
    except UnmappedError:
        return
    compiled = CompiledPrompt(PromptSpec(text=ours))
    values = {name: f"<{name}>" for name in compiled.declaration.names}
    assert compiled.text(values) == TemplateParser.compile_template(text, values)
