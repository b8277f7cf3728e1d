"""Forms of the same question, and questions that the rules for them must not take for one."""

import re

import pytest

from quarterdeck.inference.cache.english_forms import FORMS
from quarterdeck.inference.cache.normalization import normalize


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("How do I verify my account?", "What are the steps to verify my account?"),
        ("How can I unlock my phone?", "I want to unlock my phone. How?"),
        ("How do I sort a list in Python?", "What's the way to sort a list using Python?"),
        ("What is France's population in 2019?", "How many people live in France in 2019?"),
        ("Who is the president of France?", "Name the president of France."),
        ("Who wrote Emma in 1815?", "Which author wrote Emma in 1815?"),
        ("Who painted Guernica in 1937?", "Guernica in 1937 was painted by whom?"),
        ("When did World War II end?", "Tell me when World War II ended."),
        ("How many days are in a leap year?", "In a leap year, how many days are there?"),
        ("How tall is the Eiffel Tower?", "Do you know what the height of the Eiffel Tower is?"),
        ("What is the tallest mountain in the world?", "Which mountain is the tallest in the world?"),
        ("At what temperature does iron melt?", "What is iron's melting point?"),
        ("Give me three tips for better sleep.", "Name 3 tips for better sleep."),
        ("Why doesn't my screen turn on?", "Why does not my screen turn on? Thanks!"),
        ("What is your favourite colour today?", "what is your favorite color today"),
        ("Define the notion of mass.", "What is the definition of the notion of mass?"),
        ("How do cats and dogs differ?", "What is the difference between cats and dogs?"),
        ("Is London bigger than Rome?", "Would you say that London is larger than Rome?"),
        ("Tell me the population of Rome in 1990.", "What is the population of Rome in 1990?"),
        ("List flights below 200 dollars.", "Show me flights under 200 dollars."),
        ("Explain how a fridge works.", "How does a fridge work?"),
    ],
)
def test_forms_of_one_question(one: str, other: str) -> None:
    assert normalize(one) == normalize(other) is not None


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("How do you store my passwords?", "How do I store my passwords?"),
        ("How should I reset my router?", "How do I reset my router?"),
        ("How could I forget my own birthday?", "How do I forget my own birthday?"),
        ("How do I look in this dress?", "How can I look in this dress?"),
        ("How do I always lose my keys?", "How can I always lose my keys?"),
        ("Who is the director of the FBI?", "Who directed the FBI this year?"),
        ("Who won the Super Bowl in 2020?", "Who won the 2020 Super Bowl?"),
        ("What is 9/11 to historians?", "What is 9 divided by 11 to historians?"),
        ("What is 9/11 minus 0?", "What is 9 divided by 11?"),
        ("How much is a dozen eggs?", "How much does a dozen eggs cost?"),
        ("What is the cost of an iPhone?", "What is the price of an iPhone?"),
        ("Is it possible to breathe under water?", "Can I breathe under water, please?"),
        ("Could I have won the game?", "Can I have won the game?"),
        ("What is the meaning of life?", "What does life really mean?"),
        ("How old is Aquarius in astrology?", "What is the age of Aquarius in astrology?"),
        ("List the house for sale.", "What is the house for sale?"),
        ("Name the baby after its aunt.", "What is the baby after its aunt?"),
        ("What is the way to the station?", "How do I get to the station?"),
        ("How many windows does my house have?", "How many windows are in my house?"),
        ("You can not only swim but also dive?", "You cannot swim but also dive?"),
        ("When does the store open on Sunday?", "What time does the store open on Sunday?"),
        ("Show 3 posts about cats now.", "Name 3 posts about cats now."),
        ("Write a letter on the wall.", "Write a letter about the wall."),
        ("Is a bigger deal than that usual?", "Is a larger deal than that usual?"),
        ("Why can't I log in today?", "Why can I log in today?"),
        ("What isn't made of iron here?", "What is made of iron here?"),
        ("How far is Rome from Paris by car?", "How far is Paris from Rome by car?"),
        ("What is the world's largest city?", "What is the world's oldest city?"),
        ("Who composed the Ring?", "Who wrote the Ring cycle?"),
        ("Give me two apple pies.", "Give me three apple pies."),
        ("Show all users who have paid.", "Show some users who have paid."),
    ],
)
def test_what_the_rules_keep_apart(one: str, other: str) -> None:
    found = normalize(one)
    assert found is None or found != normalize(other)


def test_a_form_is_none_of_another_rules() -> None:
    """Rules may follow one another, but none undoes or repeats another's work."""
    for text in ("What does a car cost today?", "How much does a car cost?", "How do cats and dogs differ?"):
        found = normalize(text)
        assert found is not None
        assert normalize(found) == found
        assert not re.search(r"\b(\w+) \1\b", found)
    assert len(FORMS) == len({pattern.pattern for pattern, _ in FORMS})
