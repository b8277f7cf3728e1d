"""A prompt written to a file is read again as it was, so that `pull` and then `apply` change nothing."""

from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from quarterdeck.resources.prompts.files import to_yaml

LINE_ENDS = "\n\r\x85\u2028\u2029"


@given(
    st.text(alphabet=st.sampled_from("ab \t:-#'\"{}[]%&*!|>\\" + LINE_ENDS + "\u00a0\ufeff"), max_size=12) | st.text()
)
def test_any_text_is_read_as_it_was_written(text: str) -> None:
    if any(0xD800 <= ord(char) < 0xE000 for char in text):  # no text of a prompt has one
        return
    content = {"text": text, "messages": [{"role": "user", "content": text}]}
    assert yaml.safe_load(to_yaml(content)) == content


@pytest.mark.parametrize("value", ["yes", "1e3", "~", "=", "<<", "2026-01-01", 1.5, None, [], {}, {"a": [{"b": True}]}])
def test_values_keep_their_types(value: Any) -> None:
    assert yaml.safe_load(to_yaml({"parameters": {"x": value}})) == {"parameters": {"x": value}}


def test_a_text_of_several_lines_is_a_block() -> None:
    assert to_yaml({"text": "a\nb\n"}) == "text: |\n  a\n  b\n"


def test_objects_of_a_subclass_of_dict_are_written_as_others() -> None:
    class Answer(dict[str, Any]):
        """As the commands read JSON."""

    assert to_yaml({"variables": Answer(name=Answer())}) == to_yaml({"variables": {"name": {}}})
