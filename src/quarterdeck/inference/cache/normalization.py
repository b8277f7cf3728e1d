"""Normalizes English questions, so that different wordings of one question become equal. Pure.

An embedding model places "5 km in miles" next to "50 km in miles" and "is it safe" next to "is it unsafe": questions
often differ in their smallest part. So each is reduced to its kind and its significant words, in order, without
courtesy, articles and the many ways to begin. Numbers, units, names, negations and quotations are significant. Only
questions with the same normalized form are compared by cosine. Words that no rule covers are kept and must be equal: an
unknown wording costs a miss.
"""

import re
from collections.abc import Iterable

from quarterdeck.inference.cache import english

MAX_CHARACTERS = 500
"""Longer texts are not normalized: they are more than a question, and a few rules can't tell that two are equal."""
MIN_WORDS = 2
"""Significant words besides the kind. "Who is she?" has too few to be matched."""

_QUOTED = re.compile(
    r"```.*?```|`[^`]*`|\"[^\"]*\"|“[^”]*”|«[^»]*»|(?<!\w)'(?:[^'\n]|(?<=\w)'(?=\w))+'(?!\w)", re.DOTALL
)
_SENTENCE = re.compile(r"(^|[.?!:] )([A-Z])(?![A-Z])")
_TOKEN = re.compile(r"\x00\d+|(?:(?<!\w)[-−])?\d(?:[\d.,:/]*\d)?|[^\W\d_]+(?:[.&][^\W\d_]+)*[+#]*|\S")
_THOUSANDS = re.compile(r"\d{1,3}(,\d{3})+(\.\d+)?")
_GENITIVE = re.compile(
    r"\b((?:(?:the|a|my|our|your|his|her|their) )?(?:[A-Z]\w+ )*\w+)['’]s ((?:[a-z-]+ ?){1,3}?)"
    r"(?=(?: (?:in|of|at|on|to|from|for|with|is|are|was|were|does|do|did|and|or|than)\b)|[?.!,:;]|$)"
)
_MOVED = re.compile(r"^((?:in|on|at|for|with|using|during|as) [^,?.!]+?), (.+)$", re.IGNORECASE | re.DOTALL)
_ENDS = frozenset(".,;:?…¿¡")
"""Removed from the end of a sentence. Not `!`: x! is not x."""


def normalize(text: str) -> tuple[str, ...] | None:
    """The kind of question and its significant words. None: the text is too long or too short to be matched."""
    if len(text) > MAX_CHARACTERS or "\x00" in text:
        return None
    quotes: list[str] = []

    def set_aside(match: re.Match[str]) -> str:
        quotes.append(match[0])
        return f" \x00{len(quotes) - 1} "

    plain = " ".join(_QUOTED.sub(set_aside, text.replace("’", "'").replace("‘", "'")).split())
    plain = _SENTENCE.sub(lambda found: found[1] + found[2].lower(), plain.rstrip(".?! "))
    plain = _rewritten(plain, english.CONTRACTIONS)
    plain = _MOVED.sub(r"\2 \1", _GENITIVE.sub(r"\2 of \1", plain))
    words = " ".join(_words(_TOKEN.findall(plain)))
    words = _rewritten(_rewritten(words, english.BEGINNINGS), english.PHRASES)
    kind, words = _kind(words)
    significant = [_reduce(word, quotes) for word in words.split() if word not in english.EMPTY]
    return (kind, *significant) if len(significant) >= MIN_WORDS else None


def _rewritten(text: str, rules: Iterable[tuple[re.Pattern[str], str]]) -> str:
    for pattern, by in rules:
        text = pattern.sub(by, text)
    return text.strip()


def _words(tokens: list[str]) -> Iterable[str]:
    """In one spelling: lower case, numbers in digits, ^ after a name."""
    before = ""
    for token in tokens:
        before, last = token.lower(), before
        lower = token.lower()
        if token in _ENDS:
            continue
        if token[0].isdigit() or token[-1].isdigit():
            token = token.replace("−", "-")
            yield token.replace(",", "") if _THOUSANDS.fullmatch(token) else token
        elif token.isupper() and len(token) > 1 and lower not in english.NEVER_NAMES:
            yield f"{lower}^" if lower in english.ALSO_WORDS else lower
        elif token[0].isupper() and (lower != "i" or last not in english.BEFORE_I):
            yield f"{lower}^"
        else:
            yield english.NUMBERS.get(lower, lower)


def _kind(words: str) -> tuple[str, str]:
    """The kind of question, and the words without those that express it. The past tense is a different kind."""
    kind = "do"
    for pattern, name, rest in english.KINDS:
        if (found := pattern.match(words)) is not None:
            kind, words = name, f"{found.expand(rest)} {words[found.end() :]}"
            break
    if english.PAST.search(words):
        kind, words = f"{kind}, past", english.PAST.sub(" ", words)
    return kind, words


def _reduce(word: str, quotes: list[str]) -> str:
    """A word's stem or synonym; a quotation as it was written."""
    if word.startswith("\x00"):
        return f'"{quotes[int(word[1:])].strip(english.QUOTES)}"'
    is_name = word.endswith("^")
    word = word.removesuffix("^")
    if is_name and word in english.ALSO_WORDS:
        return f"{word}^"
    stem = english.stem(word, is_name=is_name)
    return english.SYNONYMS.get(stem, stem)
