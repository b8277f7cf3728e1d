"""English tables for `normalization`, and word stems.

A rule is here only if the two wordings that it equates never ask for different things.
"""

import re

QUOTES = "`\"“”«»'‘’"


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


def _rules(*rules: tuple[str, str]) -> tuple[tuple[re.Pattern[str], str], ...]:
    return tuple((re.compile(pattern, re.IGNORECASE), by) for pattern, by in rules)


CONTRACTIONS = _rules(
    (r"\b(what|who|where|when|how|why|that|there|here|it)'s\b", r"\1 is"),
    (r"\bcan't\b|\bcannot\b", "can not"),
    (r"\bwon't\b", "will not"),
    (r"\b(is|are|was|were|do|does|did|has|have|had|should|would|could|must)n't\b", r"\1 not"),
    (r"\bI'm\b", "I am"),
    (r"\bI'd like\b", "I want"),
    (r"\$ ?(\d[\d.,]*)", r"\1 dollars"),
    (r"€ ?(\d[\d.,]*)", r"\1 euros"),
    (r"£ ?(\d[\d.,]*)", r"\1 pounds"),
    (r"(\d) ?%", r"\1 percent"),
    (r"(?:degrees )?° ?C\b", " degrees celsius"),
    (r"(?:degrees )?° ?F\b", " degrees fahrenheit"),
    (r"([^\W\d_])-([^\W\d_])", r"\1 \2"),
    (r"(\d)(?:st|nd|rd|th)\b", r"\1 th"),
)
"""Applied to the original text."""

BEGINNINGS = _rules(
    (r"^(?:(?:hi|hello|hey|please|pls|kindly|ok|okay|so) )+", ""),
    (r" (?:please|pls|thanks)$", ""),
    (r"^(?:can|could|would|will) you (?:please )?(?!say|call)", ""),
    (r"^i (?:want|need) to (.+?) (?:and )?how(?: (?:do|can) i(?: do (?:it|that|this))?)?$", r"how to \1"),
    (r"^(?:i (?:want|need) to|do you|can i) know ", ""),
    (r"^tell me (?=what|who|which|where|when|why|how|whether|if)", ""),
    (r"^explain (?=why|how)", ""),
    (r"^would you (?:say|call) (?:that )?(.+?) (is|are) ", r"\2 \1 "),
    (r"^(?:give me |write )?(?:a |the )?summary of ", "summarize "),
)
"""Applied to lower-case words, where names end with ^. Courtesy, and questions wrapped in a request."""

_N = r"(-?\d[\d.]*)"
PHRASES = _rules(
    (r"\b(?:is|are|be|been|being) (?=\w+(?:ed|en)\b)", "be+ "),  # painted, and is painted
    (r" (?:have|has|there)$", ""),
    (r"\b(write|compose|poem|story|song|speech|book|haiku|essay|text|article) on (?!\d)", r"\1 about "),
    (r"\bcapital city\b", "capital"),
    (r"^(?:which|what) (?:team|player|person) (?=\w+(?:ed|on|ote)\b)", "who "),
    (r"\b(?:together|along) with\b|\busing\b|\bby means of\b", "with"),
    (r"\bwithout with\b", "without"),
    (r"\b(?:more|greater|higher|larger) than (?=\d)|\b(?:over|above) (?=\d)", "> "),
    (r"\b(?:less|fewer|lower|smaller) than (?=\d)|\b(?:under|below) (?=\d)", "< "),
    (r"\binto\b", "to"),
    (r"^convert " + _N + r" (\w+) to (\w+)$", r"convert \1 \2 \3"),
    (r"^how many (\w+) (?:is|are|are in|are there in) " + _N + r" (\w+)$", r"convert \2 \3 \1"),
    (r"^(?:what is )?" + _N + r" (\w+) in (\w+)$", r"convert \1 \2 \3"),
    (r"^translate (\x00\d+) to (\w+\^?)$", r"translate \1 \2"),
    (r"^how (?:do|can|would) (?:i|you) say (\x00\d+) in (\w+\^?)$", r"translate \1 \2"),
    (r"^what is (\x00\d+) in (\w+\^)$", r"translate \1 \2"),
    (r"^(?:how much does|what does) (.+) cost$", r"what is cost of \1"),
    (r"^how expensive is (.+)$", r"what is cost of \1"),
    (r"^(?:what does|what) (.+) means?$", r"what is meaning of \1"),
    (r"^how many (?:people live|people are living) in ", "what is population of "),
    (r"^how many (?:inhabitants|people) does (.+) have\b", r"what is population of \1"),
    (r"^how far(?: away)? (?:is )?(.+?) from (.+)$", r"what is distance from \2 to \1"),
    (r"^how far(?: away)? from (.+) is (.+)$", r"what is distance from \1 to \2"),
    (r"\bdistance between (.+) and (.+)$", r"distance from \1 to \2"),
    (r"^how tall (?:is )?(.+?)(?: is)?$", r"what is height of \1"),
    (r"^how old (?:is )?(.+?)(?: is)?$", r"what is age of \1"),
    (r"^how heavy (?:is )?(.+?)(?: is)?$", r"what is weight of \1"),
    (r"^who (?:is|was) the author of ", "who wrote "),
    (r"^which author wrote ", "who wrote "),
    (r"^who (?:is|was) the painter of ", "who painted "),
    (r"^who (?:is|was) the inventor of ", "who invented "),
    (r"^who (?:is|was) the winner of ", "who won "),
    (r"^(.+) was written by whom$", r"who wrote \1"),
    (r"^(.+) was painted by whom$", r"who painted \1"),
    (r"^what is (?:the )?(?:birth ?date|date of birth|birthday) of (.+)$", r"when was \1 born"),
    (r"^what is (?:the )?birth ?place of (.+)$", r"where was \1 born"),
)
"""Questions with several phrasings, mapped to one of them."""

KINDS = tuple(
    (re.compile(pattern), kind, rest)
    for pattern, kind, rest in (
        (r"how to ", "how to", ""),
        (r"how (?:do|can|could|should|must|would) (?:i|we|you|one) ", "how to", ""),
        (r"how i (?:can|could|should) ", "how to", ""),
        (
            r"(?:what is|what are|explain|describe|show me|tell me) (?:the )?(?:way|steps|procedure) (?:to|of|for) ",
            "how to",
            "",
        ),
        (r"what (?:do|can|should|must) i do to ", "how to", ""),
        (r"(?:what is|tell me) (?:the )?number of ", "how many", ""),
        (r"how many ", "how many", ""),
        (r"how much is ", "what", ""),
        (r"how much ", "how much", ""),
        (r"how long ", "how long", ""),
        (r"how often ", "how often", ""),
        (r"how ", "how", ""),
        (r"(?:at|on|in) (?:what|which) (?:time|date|day) ", "when", ""),
        (r"what time ", "when", ""),
        (r"when ", "when", ""),
        (r"(?:at|in) (?:what|which) place ", "where", ""),
        (r"where ", "where", ""),
        (r"(?:what is )?(?:the )?reason (?:that|why) ", "why", ""),
        (r"(?:for|what is) what reason ", "why", ""),
        (r"why ", "why", ""),
        (r"(?:who|whom) ", "who", ""),
        (r"name who ", "who", ""),
        (r"(?:calculate|compute) ", "what", ""),
        (r"(?:tell me|name|list|state|show me|show|give me|display) ", "what", ""),
        (r"(?:explain|describe) (?=(?:the )?(?:difference|meaning)\b)", "what", ""),
        (r"(?:what|which) ", "what", ""),
        (r"(?:am i allowed to|may i) ", "may", ""),
        (r"(?:is|are|does|do|am) ", "whether", ""),
        (r"(was|were|did|has|have|had|can|may|should|would|could|will|must) ", "whether", r"\1"),
    )
)
"""How each kind of question begins, in the order in which they are tried. Anything else is an instruction, and its verb
is significant."""

PAST = re.compile(r"\b(?:was|were|did)\b")

EMPTY = _set("a an the is are am be been being do does i me my of there just exactly actually really that which please")
"""Insignificant words. `of` is the only preposition: a letter for Anna is not a letter about Anna."""

_UNITS = """zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen
seventeen eighteen nineteen twenty"""
_TENS = "ten twenty thirty forty fifty sixty seventy eighty ninety"
NUMBERS = {word: str(10 * (at + 1)) for at, word in enumerate(_TENS.split())}
NUMBERS |= {word: str(at) for at, word in enumerate(_UNITS.split())}

NEVER_NAMES = frozenset(("am", "pm"))
ALSO_WORDS = _set("us it who in or is am as at polish turkey march may apple amazon mark bill will china can no not")
"""Names that are a different word in lower case."""


_NO_PLURALS = _set("news glasses goods arms customs spectacles means thanks")


BEFORE_I = _set(
    """do did can could should would must may might will shall am was have had what when where why how who which that if
    and or but because than as while , ; : . ?"""
) | {""}
"""After any other word `I` is a number: Henry I is not Henry."""


def stem(word: str, *, is_name: bool = False) -> str:
    """A word without plural ending, -ing and final e. A name keeps its s: Rogers is not Roger. Mondays is Monday."""
    if word.isalpha() and word not in _NO_PLURALS and (not is_name or word.endswith("days")):
        if len(word) > 4 and word.endswith("ies"):
            word = word[:-3] + "y"
        elif len(word) > 4 and word.endswith(("sses", "shes", "ches", "xes", "oes")):
            word = word[:-2]
        elif len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")):
            word = word[:-1]
        if len(word) > 5 and word.endswith("ing"):
            word = word[:-3]
            if len(word) > 3 and word[-1] == word[-2] and word[-1] not in "lsz":
                word = word[:-1]
    return word[:-1] if len(word) > 3 and word.endswith("e") else word


SYNONYMS = {
    stem(word): stem(group.split()[0])
    for group in (
        "buy purchase",
        "car automobile",
        "begin start commence",
        "delete remove erase",
        "write compose",
        "large big",
        "larger bigger",
        "largest biggest",
        "tallest highest",
        "fast quick rapid",
        "faster quicker",
        "fastest quickest",
        "film movie",
        "photo picture",
        "child kid",
        "shop store",
        "summarize summarise",
        "lower reduce",
        "beginner novice",
        "correct fix",
        "price cost",
        "colour color",
        "kilometer kilometre km",
        "meter metre",
        "centimeter centimetre cm",
        "millimeter millimetre mm",
        "kilogram kg",
        "pound lb lbs",
        "mile mi",
        "foot feet ft",
        "hour hr hrs",
        "second sec secs",
        "minute mins",
    )
    for word in group.split()
}
"""Each word of a group maps to the first one."""
