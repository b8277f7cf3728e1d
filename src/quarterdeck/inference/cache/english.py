"""English wordings that never change what is asked, as rewriting rules for `normalization`.

A rule is here only if no two questions that it equates could have different answers. So no rule drops an article or a
word's ending, or changes case, and each names the words to which it applies. The rules change how a question begins and
ends, forms of the same question ("France's capital", "the capital of France"), contractions, and spellings of numbers
and units. `english_forms` has the forms.
"""

import re
from collections.abc import Iterable

Rule = tuple[re.Pattern[str], str]


def rules_of(*rules: tuple[str, str]) -> tuple[Rule, ...]:
    return tuple((re.compile(pattern), by) for pattern, by in rules)


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


FIRST_WORDS = _set(
    """what what's how how's who who's when when's where where's why why's which is are does do did can could should
    was were would please hi hello hey give explain tell show list name summarize summarise translate convert calculate
    compute write describe recommend compose at in am has have had whose whom define compare create generate find"""
)
"""First words whose capital letter means only that a sentence begins. Not `will` or `go`, which are names too."""

WITHOUT_MARK = FIRST_WORDS | {"may", "="}
"""With one of these at its beginning, a normalized text needs no question mark. "Delete it?" is not "Delete it."."""

_WORD = rf"(?i:{'|'.join(sorted(FIRST_WORDS, key=len, reverse=True))})\b"
_REQUESTS = "tell me|give me|show me|write me|write an?|explain|list|summari[sz]e|calculate|compute|recommend an?"
"""With them, "can you …" is a request. "Could you sell the house?" and "Can you write Chinese?" are none."""
_VERBS = "tell|give|show|write|explain|list|name|summari[sz]e|calculate|compute|recommend|translate|convert|describe"

_ABOUT_TEXT = (
    "say|says|saying|spell\\w*|word|words|phrase\\w*|sentence\\w*|grammar|writ\\w*|abbreviat\\w*|symbol|pronounc\\w*|print\\w*"
    "|type|typed|typing|reply|replies|text\\w*|message\\w*|note|quote\\w*|rhym\\w*|correct|translat\\w*|match\\w*|regex\\w*|pattern"
    "|glob|string\\w*|code|path|command|call|called"
)
ABOUT_TEXT = re.compile(rf"\b(?:{_ABOUT_TEXT})\b", re.IGNORECASE)
"""A question with one of these words may be about the spelling of its own end: "How do I say hello, please?"."""
WRITE_ONE = re.compile(
    r"^(?:(?:[Pp]lease|[Cc]an you|[Cc]ould you|[Ww]ould you) )*[Ww]rite (?:me )?an? "
    r"(?=poem|haiku|sonnet|limerick|essay|story)"
)
"""Here writing is what is asked for, not what the question is about."""
ABOUT_PATTERNS = re.compile(r"\b(?:match\w*|regex\w*|patterns?|globs?)\b", re.IGNORECASE)
"""Here even the last question mark may be part of what is asked about."""

_QUESTION = "what|who|whose|where|when|why|how|which"
_WONDERING = (
    "do you know|does any(?:one|body) know|I (?:want|need|would like) to know|I['’]d like to know|I['’]m wondering"
    "|I am wondering|I was wondering|I wonder|let me know|(?:can|could|would) you tell me|tell me|quick question[:,]"
)

COURTESY = rules_of(
    (rf"^(?:[Hh]i|[Hh]ello|[Hh]ey)(?: there)?[,.!] (?={_WORD})", ""),
    (rf"^(?:[Oo]k|[Oo]kay|[Ww]ell|[Ss]o|[Aa]nd), (?={_WORD})", ""),
    (rf"^[Pp]lease,? (?={_WORD})", ""),
    (rf"^(?i:{_WONDERING}) (?=(?i:{_QUESTION})\b)", ""),
    (rf"^(?:can|could) you (?=(?:please )?(?:{_REQUESTS}) )", ""),
    (rf"^(?:can|could|would|will) you please (?=(?:{_VERBS}) )", ""),
)
"""Applied until nothing changes."""
_THANKS = "thanks|thank you|thanks in advance|thank you in advance|thanks a lot|many thanks"
THANKS = re.compile(rf", (?:please|{_THANKS})$")
CLOSING = re.compile(rf"(?<=[.?!]) (?i:{_THANKS})[.!]?$")
"""A sentence of its own."""

_COUNTS = ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
NUMBERS = rules_of(
    *((rf"{word} (?=[a-z]+s\b)(?<=\b{word} )", f"{count} ") for count, word in enumerate(_COUNTS, 2)),
    (
        r"(?<![\w.,/^$€£-])(\d{1,3}),(\d{3})"
        r"(?= (?:dollars|euros|pounds|people|users|words|km|kg|miles|meters|metres)\b)",
        r"\1\2",
    ),
)
"""Applied before the forms. Not "one": it is a pronoun as well."""
CONTRACTIONS = rules_of(
    (r"\b([Cc])an['’]t\b", r"\1annot"),
    (r"\b([Cc])an not\b(?! only)", r"\1annot"),
    (r"\b([Ww])on['’]t\b", r"\1ill not"),
    (
        r"\b((?:[Dd]o|[Dd]oes|[Dd]id|[Ii]s|[Aa]re|[Ww]as|[Ww]ere|[Cc]ould|[Ss]hould|[Ww]ould|[Hh]ave|[Hh]as|[Hh]ad))n['’]t\b",
        r"\1 not",
    ),
    (r"\bI['’]m\b", "I am"),
    (r"\bI['’]ve\b", "I have"),
    (r"\b([Yy]ou|[Ww]e|[Tt]hey)['’]re\b", r"\1 are"),
)
"""Those with one expansion: "it's" is "it is" or "it has"."""

_NUMBER = r"(?<![\w.,/^-])(\d+(?:\.\d+)?)"
SPELLINGS = rules_of(
    *(
        (rf"{_NUMBER} ?(?:{words})(?![\w/^²³*-])", rf"\1 {unit}")
        for unit, words in (
            ("km", "km|kilometers?|kilometres?"),
            ("cm", "cm|centimeters?|centimetres?"),
            ("mm", "mm|millimeters?|millimetres?"),
            ("kg", "kg|kilograms?"),
            ("°C", "° ?C|degrees? Celsius"),
            ("°F", "° ?F|degrees? Fahrenheit"),
        )
    ),
    (rf"{_NUMBER} ?(?:%|percent)(?= of )", r"\1 percent"),
    (r"^how many ([a-z]+) (?:is|are|are in) (\d[\d.]* \S+)$", r"convert \2 to \1"),
    (r"^(?:calculate|what is) (\d[\d.]* [a-z]+) in ([a-z]+)$", r"convert \1 to \2"),
    (r"^convert (\d[\d.]* \S+) into ", r"convert \1 to "),
)
"""One spelling of the same number and unit."""
WORDS = rules_of(
    (r"\b(colo|favo|behavio|flavo|neighbo|labo)ur(s?)\b", r"\1r\2"),
    (r"\bfavourite(s?)\b", r"favorite\1"),
    (r"\b(organi|recogni|optimi|minimi|maximi|normali|summari|analy)s(e[sd]?|ing)\b", r"\1z\2"),
    (r"\b(travel|cancel|model)l(ed|ing)\b", r"\1\2"),
    (r"\be-mail(s?)\b", r"email\1"),
    (r"\b(?:WiFi|Wifi|wifi|wi-fi)\b", "Wi-Fi"),
)
"""One spelling of the same word."""


def apply(rules: Iterable[Rule], text: str) -> str:
    """The text after each rule in turn."""
    for pattern, by in rules:
        if pattern.pattern[0] != "^":
            text = pattern.sub(by, text)
        elif (found := pattern.match(text)) is not None:  # `sub` would look for a beginning everywhere
            text = found.expand(by) + text[found.end() :]
    return text
