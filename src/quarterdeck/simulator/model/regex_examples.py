"""Short texts that match a regular expression, for a schema's `pattern` and vLLM's `regex`.

Walks the parse tree of the standard library's `re`. Look-arounds are ignored: a text that does not match because of one
is not returned.
"""

import re
from collections.abc import Iterable, Sequence

# The parse tree has no public name; it has kept this shape since 2.x (`sre_parse`, from 3.11 on in `re`).
from re import _constants as codes  # type: ignore[attr-defined]
from re import _parser as parser  # type: ignore[attr-defined]
from typing import Any

CANDIDATES = "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ -_.@/:,"

LONGEST = 10_000


def example_match(pattern: str) -> str | None:
    """Return a short text that contains a match of the pattern, or None."""
    try:
        tree = parser.parse(pattern)
        text = _text(tree, [])
        return text if re.search(pattern, text) else None
    except (re.error, OverflowError, RecursionError, ValueError):
        return None


def _text(tree: Iterable[tuple[Any, Any]], groups: list[tuple[int, str]]) -> str:
    return "".join(_one(code, argument, groups) for code, argument in tree)


def _one(code: Any, argument: Any, groups: list[tuple[int, str]]) -> str:
    if code is codes.LITERAL:
        return chr(argument)
    if code is codes.NOT_LITERAL:
        return next(sign for sign in CANDIDATES if ord(sign) != argument)
    if code is codes.ANY:
        return "a"
    if code is codes.IN:
        return _member(argument)
    if code is codes.BRANCH:
        return min((_text(branch, groups) for branch in argument[1]), key=len)
    if code in (codes.MAX_REPEAT, codes.MIN_REPEAT, codes.POSSESSIVE_REPEAT):
        least, _, inner = argument
        text = _text(inner, groups)
        if len(text) * int(least) > LONGEST:
            raise ValueError("too long")
        return text * int(least)
    if code is codes.SUBPATTERN:
        text = _text(argument[3], groups)
        if argument[0] is not None:
            groups.append((argument[0], text))
        return text
    if code is codes.ATOMIC_GROUP:
        return _text(argument, groups)
    if code is codes.GROUPREF:
        return next((text for number, text in reversed(groups) if number == argument), "")
    return ""


def _member(items: Sequence[tuple[Any, Any]]) -> str:
    for sign in CANDIDATES:
        if _belongs(sign, items):
            return sign
    for code, argument in items:
        if code is codes.LITERAL:
            return chr(argument)
        if code is codes.RANGE:
            return chr(argument[0])
    return "\n" if _belongs("\n", items) else "~"


def _belongs(sign: str, items: Sequence[tuple[Any, Any]]) -> bool:
    negated = bool(items) and items[0][0] is codes.NEGATE
    inside = any(_is(sign, code, argument) for code, argument in items if code is not codes.NEGATE)
    return inside != negated


def _is(sign: str, code: Any, argument: Any) -> bool:
    if code is codes.LITERAL:
        return ord(sign) == int(argument)
    if code is codes.RANGE:
        return bool(argument[0] <= ord(sign) <= argument[1])
    if code is codes.CATEGORY:
        name = str(argument).removeprefix("CATEGORY_").lower()
        kind = name.removeprefix("not_")
        holds = {
            "digit": sign.isdigit(),
            "space": sign.isspace(),
            "word": sign.isalnum() or sign == "_",
        }.get(kind, False)
        return holds != name.startswith("not_")
    return False
