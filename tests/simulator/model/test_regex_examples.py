import re

import pytest

from quarterdeck.simulator.model.regex_examples import example_match


@pytest.mark.parametrize(
    "pattern",
    [r"^\d{4}-\d{2}$", r"[^a-z]+", r"(yes|no)\1", r"\w+@\w+\.(com|org)", r"a*b?c{2,5}", r"^$", r"(?P<x>q)z", r"[\s\S]"],
)
def test_a_text_for_a_pattern_matches_it(pattern: str) -> None:
    text = example_match(pattern)
    assert text is not None
    assert re.search(pattern, text)


def test_a_broken_pattern_has_no_text() -> None:
    assert example_match("(") is None
