"""A version whose parameters no request could have is not stored."""

from typing import Any

import pytest

from quarterdeck.resources.prompts.checks import check_version
from quarterdeck.settings.prompts import PromptSpec
from quarterdeck.templating.prompt import SpecError

CHAT: dict[str, Any] = {"messages": [{"role": "user", "content": "x"}]}


@pytest.mark.parametrize(
    "spec",
    [
        {"text": "x", "parameters": {"temperature": 0.5, "stop": ["a"], "max_tokens": 7}},
        {"text": "x", "parameters": {"logprobs": 3}},  # of a completion
        {"text": "x", "parameters": {"logprobs": True}},  # of a chat
        {**CHAT, "parameters": {"logprobs": True, "reasoning_effort": "low"}},
        {**CHAT, "tools": [{"type": "function"}], "response_format": {"type": "json_object"}},
    ],
)
def test_what_a_request_could_have_is_good(spec: dict[str, Any]) -> None:
    check_version(PromptSpec.model_validate(spec))


@pytest.mark.parametrize(
    ("spec", "param"),
    [
        ({"text": "x", "parameters": {"temperature": "hot"}}, "parameters.temperature"),
        ({"text": "x", "parameters": {"logprobs": "many"}}, "parameters.logprobs"),
        ({**CHAT, "parameters": {"logprobs": 3}}, "parameters.logprobs"),
        ({**CHAT, "parameters": {"n": -1}}, "parameters.n"),
        ({**CHAT, "parameters": {"stop": {}}}, "parameters.stop"),
        ({"text": "{{ x.y }}"}, "text"),
    ],
)
def test_what_none_could_have_is_refused_and_named(spec: dict[str, Any], param: str) -> None:
    with pytest.raises(SpecError) as refused:
        check_version(PromptSpec.model_validate(spec))
    assert refused.value.param == param
