"""Servers receive the fields that they know."""

import msgspec
import pytest

from quarterdeck.protocol.dialects import VLLM_ONLY, Dialect, translate


def raw(**values: object) -> dict[str, msgspec.Raw]:
    return {name: msgspec.Raw(msgspec.json.encode(value)) for name, value in values.items()}


def test_vllm_takes_every_field() -> None:
    members = raw(model="m", top_k=5, something_new=1)
    assert translate(members, "vllm") == members


@pytest.mark.parametrize("dialect", ["openai", "ollama"])
def test_others_are_not_sent_what_only_vllm_knows(dialect: Dialect) -> None:
    members = raw(model="m", temperature=0, something_new=1)
    assert translate(members | raw(**dict.fromkeys(VLLM_ONLY, 1)), dialect) == members


def test_ollama_knows_one_name_for_the_most_tokens() -> None:
    assert translate(raw(max_completion_tokens=5), "ollama") == raw(max_tokens=5)
    assert translate(raw(max_completion_tokens=5, max_tokens=7), "ollama") == raw(max_tokens=7)
    assert translate(raw(max_completion_tokens=5), "openai") == raw(max_completion_tokens=5)
