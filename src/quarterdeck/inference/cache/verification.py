"""Whether two wordings ask the same, as far as words can tell. Pure, English, strict.

An embedding model puts "5 km in miles" beside "50 km in miles" and "is it safe" beside "is it unsafe": what makes two
questions different is often the smallest part of them. So each is reduced to its *essence*: the kind of question and
the words that carry it, in order, without courtesy, articles and the many ways to begin. Numbers, units, names,
negations and quotations are such words. Two questions are one only if their essences are equal; the cosine is asked
after that. What is not understood stays as it is and must be equal: a wording unknown here costs a miss.
"""

import re
from collections.abc import Iterable

from quarterdeck.inference.cache import wording

MAX_CHARACTERS = 500
"""A longer text is more than a question: nobody can say in a few rules that two of them are one."""
FEWEST_WORDS = 2
"""Beside the kind. "Who is she?" says too little to be known again."""

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
"""Not `!`: x! is not x."""


def essence(text: str) -> tuple[str, ...] | None:
    """What is asked, as words to compare. None: too much or too little to be known again in other words."""
    if len(text) > MAX_CHARACTERS or "\x00" in text:
        return None
    quotes: list[str] = []

    def set_aside(match: re.Match[str]) -> str:
        quotes.append(match[0])
        return f" \x00{len(quotes) - 1} "

    plain = " ".join(_QUOTED.sub(set_aside, text.replace("’", "'").replace("‘", "'")).split())
    plain = _SENTENCE.sub(lambda found: found[1] + found[2].lower(), plain.rstrip(".?! "))
    plain = _rewritten(plain, wording.CONTRACTIONS)
    plain = _MOVED.sub(r"\2 \1", _GENITIVE.sub(r"\2 of \1", plain))
    words = " ".join(_words(_TOKEN.findall(plain)))
    words = _rewritten(_rewritten(words, wording.BEGINNINGS), wording.PHRASES)
    kind, words = _kind(words)
    carrying = [_carrying(word, quotes) for word in words.split() if word not in wording.EMPTY]
    return (kind, *carrying) if len(carrying) >= FEWEST_WORDS else None


def _rewritten(text: str, rules: Iterable[tuple[re.Pattern[str], str]]) -> str:
    for pattern, by in rules:
        text = pattern.sub(by, text)
    return text.strip()


def _words(tokens: list[str]) -> Iterable[str]:
    """As one writes them who writes all the same way: lower case, numbers in digits, ^ after a name."""
    before = ""
    for token in tokens:
        before, last = token.lower(), before
        lower = token.lower()
        if token in _ENDS:
            continue
        if token[0].isdigit() or token[-1].isdigit():
            token = token.replace("−", "-")
            yield token.replace(",", "") if _THOUSANDS.fullmatch(token) else token
        elif token.isupper() and len(token) > 1 and lower not in wording.NEVER_NAMES:
            yield f"{lower}^" if lower in wording.ALSO_WORDS else lower
        elif token[0].isupper() and (lower != "i" or last not in wording.BEFORE_I):
            yield f"{lower}^"
        else:
            yield wording.NUMBERS.get(lower, lower)


def _kind(words: str) -> tuple[str, str]:
    """The kind of question, and the words without those that say it. The past is another kind."""
    kind = "do"
    for pattern, name, rest in wording.KINDS:
        if (found := pattern.match(words)) is not None:
            kind, words = name, f"{found.expand(rest)} {words[found.end() :]}"
            break
    if wording.PAST.search(words):
        kind, words = f"{kind}, past", wording.PAST.sub(" ", words)
    return kind, words


def _carrying(word: str, quotes: list[str]) -> str:
    if word.startswith("\x00"):
        return f'"{quotes[int(word[1:])].strip(wording.QUOTES)}"'
    is_name = word.endswith("^")
    word = word.removesuffix("^")
    if is_name and word in wording.ALSO_WORDS:
        return f"{word}^"
    stem = wording.stem(word, is_name=is_name)
    return wording.SYNONYMS.get(stem, stem)
