"""Long inputs and outputs are cut to a size, and what explains a failure stays."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quarterdeck.inference.capture.cutting import cut, cut_choices, shortened, size_of
from quarterdeck.redaction.redactor import Redactor

SLACK = 400
"""Bytes of marks and of JSON around them."""


def test_a_conversation_keeps_its_first_message_and_its_latest() -> None:
    messages = [{"role": "user", "content": f"message {n} " + "x" * 200} for n in range(100)]
    found, is_cut = cut({"messages": messages}, 4000)
    assert is_cut
    assert found["messages"][0] == messages[0]
    assert found["messages"][-1] == messages[-1]
    assert found["messages"][1]["content"].endswith("items cut]")
    assert size_of(found) <= 4000 + SLACK


def test_one_long_message_keeps_its_beginning() -> None:
    found, is_cut = cut({"messages": [{"role": "user", "content": "x" * 10_000}]}, 1000)
    assert is_cut
    assert found["messages"][0]["content"].startswith("x" * 500)
    assert "characters cut]" in found["messages"][0]["content"]


@pytest.mark.parametrize(
    "secret",
    [
        *("ann.smith@example.com", "4111 1111 1111 1111", "DE89 3704 0044 0532 0130 00", "+49 151 2345 6789"),
        *("password=correct-horse", "123-45-6789", "sk-proj-" + "Ab12_-" * 8),
    ],
)
def test_nothing_is_left_of_a_secret_that_is_cut(secret: str) -> None:
    redactor = Redactor()
    for at in range(1, len(secret)):
        text = "word " * 40 + secret[: len(secret)] + " word" * 100
        kept = shortened(text, 200 + at)
        shown = redactor.text(kept)
        assert not [part for part in secret.split() if part[:4] in shown], (at, shown)
        assert shown.startswith("word " * 30)
        assert kept.endswith(f"{len(text) - kept.index('…')} characters cut]")


def test_tools_do_not_crowd_out_the_messages() -> None:
    tools = [{"type": "function", "function": {"name": f"f{n}", "description": "d" * 100}} for n in range(1000)]
    found, _ = cut({"tools": tools, "messages": [{"role": "user", "content": "Hi"}]}, 2000)
    assert found["messages"] == [{"role": "user", "content": "Hi"}]


def test_short_ones_are_not_touched() -> None:
    members = {"messages": [{"role": "user", "content": "Hi"}]}
    assert cut(members, 1000) == (members, False)
    assert cut_choices([{"index": 0, "text": "a"}], 1000) == ([{"index": 0, "text": "a"}], False)


_json = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**6), 10**6) | st.text(max_size=300),
    lambda inner: st.lists(inner, max_size=12) | st.dictionaries(st.text(max_size=10), inner, max_size=6),
    max_leaves=60,
)


@given(st.dictionaries(st.sampled_from(["messages", "prompt", "tools", "input"]), _json), st.integers(200, 2000))
def test_any_input_is_cut_to_about_the_size(members: dict[str, Any], most: int) -> None:
    found, is_cut = cut(members, most)
    assert found.keys() == members.keys()
    if not is_cut:
        assert found == members
    # A character is up to 6 bytes of JSON, and each value cut leaves a mark.
    assert size_of(found) <= 6 * most + 4 * SLACK
