"""Normalizes questions, so that different wordings of one question become equal. Pure.

An embedding model places "5 km in miles" next to "50 km in miles" and "is it safe" next to "is it unsafe": questions
often differ in their smallest part. So only how a question begins and ends is rewritten (`english`): courtesy, "how do
I" and "how can I", the final question mark. All else must be equal, letter by letter. Only questions with the same
normalized form are compared by cosine. A wording that no rule covers costs a miss.
"""

import re

from quarterdeck.inference.cache import english
from quarterdeck.inference.cache.english_forms import FORMS

MAX_CHARACTERS = 500
"""Longer texts are not normalized: they are more than a question, and a few rules can't tell that two are equal."""
MIN_WORDS = 4
"""Words of the normalized form. "Who is she?" has too few to be matched without its context."""

_QUOTED = re.compile(r"`[^`]*`|\"[^\"]*\"|«[^»]*»|(?<!\w)'(?:[^']|(?<=\w)'(?=\w))+'(?!\w)")
_LAYOUT = re.compile(r"[^\S ]|  |```")
"""Line breaks, tabs, double spaces: code and tables, where white space has a meaning."""
_END = re.compile(r"(?<=[\w\x01])\?$|(?<=[^\W\d_]{2})\.$|(?<=\x01)\.$|(?<= [0-9]{4})\.$")
"""Not after another sign, a letter or a number other than a year: `cd ..` is not `cd`, and `1.` is not `1`."""
_DIGIT = re.compile(r"[0-9]")
_PLACE = re.compile(r"\x00(\d+)\x01")


def normalize(text: str) -> str | None:
    """The question in its normalized form. None: the text is too long or too short to be matched."""
    if len(text) > MAX_CHARACTERS or "\x00" in text or "\x01" in text:
        return None
    text = text.strip()
    if _LAYOUT.search(text) is None:
        text = _rewrite(text)
    return text if text.count(" ") + 1 >= MIN_WORDS else None


def _rewrite(text: str) -> str:
    quotes: list[str] = []

    def set_aside(match: re.Match[str]) -> str:
        quotes.append(match[0])
        return f"\x00{len(quotes) - 1}\x01"

    plain = _QUOTED.sub(set_aside, text)
    is_about_text = english.ABOUT_TEXT.search(english.WRITE_ONE.sub("", plain)) is not None
    if not is_about_text:
        plain = english.CLOSING.sub("", plain)
    end = _END.search(plain)
    if english.ABOUT_PATTERNS.search(plain) is not None:
        end = None
    if end is not None and (end[0] == "?" or not is_about_text or quotes):
        plain = plain[:-1]
    plain = _lower_first(plain if is_about_text else english.THANKS.sub("", plain))
    while (shorter := _lower_first(english.apply(english.COURTESY, plain))) != plain:
        plain = shorter
    if not is_about_text:
        plain = english.apply(english.CONTRACTIONS, english.apply(english.NUMBERS, plain))
    plain = english.apply(FORMS, plain)
    if not is_about_text:
        plain = english.apply(english.WORDS, plain)
        if _DIGIT.search(plain) is not None:
            plain = english.apply(english.SPELLINGS, plain)
    if end is not None and end[0] == "?" and plain.partition(" ")[0] not in english.WITHOUT_MARK:
        plain += "?"
    return _PLACE.sub(lambda found: quotes[int(found[1])], plain)


def _lower_first(text: str) -> str:
    first, space, rest = text.partition(" ")
    lower = first.lower()
    return (
        f"{lower}{space}{rest}" if lower.replace("’", "'") in english.FIRST_WORDS and not first[1:].isupper() else text
    )
