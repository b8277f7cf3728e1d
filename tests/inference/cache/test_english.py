"""The rewriting rules of English: where each applies, and where the same words mean something else."""

import time

import pytest

from quarterdeck.inference.cache import english
from quarterdeck.inference.cache.normalization import MAX_CHARACTERS, normalize


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("What's the time in Rome?", "what is the time in Rome"),
        ("PLEASE LIST THE FILES", "PLEASE LIST THE FILES"),
        ("Delete the old backup?", "Delete the old backup?"),
        ("IS it a flag?", "IS it a flag?"),
        ("how do I add a user?", "how to add a user"),
        ("how do i add a user?", "how do i add a user"),
        ("How do I look in red?", "how do I look in red"),
        ("What does if i do in Basic?", "what does if i do in Basic"),
        ("How do I say please?", "how do I say please"),
        ("Show the whole list, please.", "show the whole list"),
        ("How do you say hello, please?", "how do you say hello, please"),
        ("Which names match ab?", "what names match ab?"),
        ("Explain the regex ab.", "explain the regex ab."),
        ("What is 24/7 for you?", "what is 24/7 for you"),
        ("What is 24 divided by 7?", "= 24 divided by 7"),
        ("Would you recommend the surgery?", "would you recommend the surgery"),
        ("How long is 3 kilometres?", "how long is 3 km"),
        ("How long is .3 kilometres?", "how long is .3 kilometres"),
        ("How big are 3 km²?", "how big are 3 km²"),
        ("What does f(1,234) give?", "what does f(1,234) give"),
        ('Translate "can\'t" to German.', 'translate "can\'t" into German'),
        ("Run a\n  b now?", "Run a\n  b now?"),
    ],
)
def test_a_rule_applies_where_it_can_not_change_the_meaning(text: str, form: str) -> None:
    assert normalize(text) == form


def test_no_form_is_rewritten_again() -> None:
    for word in ("how to sort a list", "calculate 3 plus 4", "what is the capital of France", "convert 10 km to miles"):
        assert normalize(word) == normalize(f"{word}?") == normalize(f"please {word}")
    assert normalize("calculate 3 plus 4") == normalize("How much is 3 plus 4?")


@pytest.mark.parametrize("part", ["'", "'a'b", "what is ", "In A, how ", "1,234", "I need to a ", "A's ", "the ", "' "])
def test_the_longest_texts_take_milliseconds(part: str) -> None:
    text = (part * MAX_CHARACTERS)[: MAX_CHARACTERS - 8] + " a b c"
    began = time.process_time()
    normalize(text)
    assert time.process_time() - began < 0.25
    assert english.apply(english.COURTESY, text) is not None
