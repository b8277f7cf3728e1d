"""Word stems and tables of English."""

import pytest

from quarterdeck.inference.cache.english import ALSO_WORDS, EMPTY, NUMBERS, SYNONYMS, stem


@pytest.mark.parametrize(
    ("words", "stemmed"),
    [
        ("city cities", "city"),
        ("box boxes", "box"),
        ("class classes", "class"),
        ("run runs running", "run"),
        ("bake bakes baking", "bak"),
        ("spell spelling", "spell"),
        ("news", "news"),
        ("bus", "bus"),
        ("-3", "-3"),
    ],
)
def test_forms_of_one_word_have_one_stem(words: str, stemmed: str) -> None:
    assert [stem(word) for word in words.split()] == [stemmed] * len(words.split())


def test_a_name_keeps_its_s_and_a_weekday_does_not() -> None:
    assert (stem("rogers", is_name=True), stem("mondays", is_name=True)) == ("rogers", "monday")


def test_the_first_synonym_stands_for_itself() -> None:
    assert all(SYNONYMS.get(meant, meant) == meant for meant in SYNONYMS.values())


def test_no_significant_word_is_empty() -> None:
    assert EMPTY.isdisjoint(SYNONYMS)
    assert EMPTY.isdisjoint(NUMBERS)
    assert EMPTY - {"is", "am"} == EMPTY - ALSO_WORDS
