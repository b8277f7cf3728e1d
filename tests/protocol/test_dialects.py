"""Servers receive the fields that they know."""

import msgspec
import pytest

from quarterdeck.protocol.dialects import DIALECTS, VLLM_ONLY, Dialect, translate


def raw(**values: object) -> dict[str, msgspec.Raw]:
    return {name: msgspec.Raw(msgspec.json.encode(value)) for name, value in values.items()}


def test_vllm_takes_every_field() -> None:
    members = raw(model="m", top_k=5, something_new=1)
    assert translate(members, "vllm") == members


@pytest.mark.parametrize("dialect", ["openai", "ollama"])
def test_others_are_not_sent_what_only_vllm_knows(dialect: Dialect) -> None:
    members = raw(model="m", temperature=0, something_new=1)
    assert translate(members | raw(**dict.fromkeys(VLLM_ONLY, 1)), dialect) == members


def test_a_cap_is_sent_once_as_max_tokens() -> None:
    chat = raw(messages=[])
    for dialect in DIALECTS:
        if dialect != "vllm":
            assert translate(chat | raw(max_completion_tokens=5), dialect) == chat | raw(max_tokens=5)
            assert translate(chat | raw(max_completion_tokens=5, max_tokens=7), dialect) == chat | raw(max_tokens=5)
            assert translate(chat | raw(max_completion_tokens=None, max_tokens=7), dialect) == chat | raw(max_tokens=7)
