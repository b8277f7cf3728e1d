"""English wordings that never change what is asked, as rewriting rules for `normalization`.

A rule is here only if no two questions that it equates could have different answers. So nothing rewrites a word inside
a question: no articles, no word endings, no synonyms, no case. The rules change how a question begins and ends, and
spellings of numbers and units.
"""

import re
from collections.abc import Iterable

Rule = tuple[re.Pattern[str], str]


def _rules(*rules: tuple[str, str]) -> tuple[Rule, ...]:
    return tuple((re.compile(pattern), by) for pattern, by in rules)


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


FIRST_WORDS = _set(
    """what what's how how's who who's when when's where where's why why's which is are does do did can could should
    was were would please hi hello hey give explain tell show list name summarize summarise translate convert calculate
    compute write describe recommend compose"""
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
ABOUT_PATTERNS = re.compile(r"\b(?:match\w*|regex\w*|patterns?|globs?)\b", re.IGNORECASE)
"""Here even the last question mark may be part of what is asked about."""

COURTESY = _rules(
    (rf"^(?:[Hh]i|[Hh]ello|[Hh]ey)(?: there)?[,.!] (?={_WORD})", ""),
    (rf"^[Pp]lease,? (?={_WORD})", ""),
    (rf"^(?:can|could) you (?=(?:please )?(?:{_REQUESTS}) )", ""),
    (rf"^(?:can|could|would|will) you please (?=(?:{_VERBS}) )", ""),
)
"""Applied until nothing changes."""
THANKS = re.compile(r", (?:please|thanks|thank you)$")

_NAME = r"(?:[A-Z][a-z]+ )*[A-Z][a-z]+"
_DONE = (
    "reset|install|uninstall|sort|cancel|delete|remove|create|add|open|close|connect|disconnect|encrypt|decrypt|convert|update"
    "|upgrade|configure|enable|disable|undo|export|import|download|upload|make|fix|cook|boil|fry|bake|copy|move|rename"
    "|merge|reverse|build|send|share|save|pay|contact|order|book|clean|replace|calculate|compute|parse|split|join|deploy"
    "|start|stop|restart|lower|raise|renew|dispute|mount|migrate|subtract|clear|filter"
)
"""What is done with an object. "How do I look?" does not ask how to look."""
BEGINNINGS = _rules(
    (r"^(what|who|where|when|how|why)['’]s ", r"\1 is "),
    (r"^[Ii]n ([\w+#]+), (how|what|which|who|when|where|why) (.+)$", r"\2 \3 in \1"),
    (rf"^I (?:need|want) to ((?:{_DONE}) .+?)(?:,|\. [Hh]ow|, how) (?:how )?do I do (?:that|this|it)$", r"how to \1"),
    (r"^explain how to ", "how to "),
    (rf"^how (?:do|can) I (?=(?:{_DONE}) )", "how to "),
    (rf"^what (?:is the way|are the steps) to (?=(?:{_DONE}) )", "how to "),
    (r"^tell me (?=(?:what|who|where|when|why|how|which) )", ""),
    (r"^what (the .+) (?:is|are)$", r"what is \1"),
    (r"^who (the .+) is$", r"who is \1"),
    (r"^where ([A-Z][\w .'-]*) was born$", r"where was \1 born"),
    (r"^tell me (?=the )", "what is "),
    (r"^(?:what are|which is|which are) (?=the )", "what is "),
    (r"^what is the capital city of ", "what is the capital of "),
    (r"^who is the author of ", "who wrote "),
    (r"^who (?:is|was) the winner of (?=the )", "who won "),
    (r"^(?:what is|explain) the meaning of (\x00\d+\x01)$", r"what does \1 mean"),
    (r"^translate (\x00\d+\x01) to (?=[A-Z])", r"translate \1 into "),
    (r"^how (?:do you say|do I say|to say) (\x00\d+\x01) in ([A-Z][a-z]+)$", r"translate \1 into \2"),
    (r"^(?:calculate|compute|how much is|what is) (?=-?\d[\d.]*(?: plus| minus| times| divided| percent|% of) )", "= "),
    (r"^(?:calculate|compute) ", "calculate "),
    (r"^(?:summarise|give me a summary of) ", "summarize "),
    (r"^(write|show) me (?=an? |the |some )", r"\1 "),
    (r"^what is the number of ([a-z]+) in ", r"how many \1 are in "),
    (rf"^how many people live in ({_NAME})$", r"what is the population of \1"),
    (r"^(?:am I allowed to|May I) ", "may I "),
)
"""Applied once each, in this order. A number between \\x00 and \\x01 stands for a quotation."""

_NUMBER = r"(?<![\w.,/^-])(\d+(?:\.\d+)?)"
SPELLINGS = _rules(
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


def apply(rules: Iterable[Rule], text: str) -> str:
    """The text after each rule in turn."""
    for pattern, by in rules:
        text = pattern.sub(by, text)
    return text
