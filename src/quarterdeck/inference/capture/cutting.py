"""Cuts inputs and outputs to a size. Pure, one pass over the value.

Of a conversation the first message, the usual place of the instructions, and the latest ones are kept; of a text its
beginning, up to a whole word: half of a secret or of an address matches no rule of the redaction, which comes later.
"""

from typing import Any

import msgspec

MAIN = ("messages", "prompt", "input")
"""Members that get what the others leave."""
_LEAST = 64
MAX_BROKEN = 64
"""Characters before a cut that may be part of something secret. More of it, and its rule matches the beginning."""


def cut(members: dict[str, Any], most: int) -> tuple[dict[str, Any], bool]:
    """The members within `most` bytes of JSON, but for a few bytes, and whether anything was cut."""
    if size_of(members) <= most:
        return members, False
    budget = most
    found: dict[str, Any] = {}
    for name in sorted(members, key=lambda name: name in MAIN):
        share = budget if name in MAIN else min(budget, most // 4)
        found[name] = _cut_value(members[name], share)
        budget = max(0, budget - size_of(found[name]))
    return {name: found[name] for name in members}, True


def cut_choices(choices: list[Any], most: int) -> tuple[list[Any], bool]:
    """The choices of an answer, each within its share of `most` bytes."""
    if size_of(choices) <= most:
        return choices, False
    share = most // max(1, len(choices))
    if share < _LEAST:
        choices = choices[: most // _LEAST]
        share = _LEAST
    return [shortened(choice, share) for choice in choices], True


def size_of(value: Any) -> int:
    """Bytes of JSON."""
    return len(msgspec.json.encode(value))


def shortened(value: Any, most: int) -> Any:
    """The value with its texts cut, the later ones first, so that they have about `most` characters together."""
    left = most

    def walk(value: Any) -> Any:
        nonlocal left
        if isinstance(value, str):
            if len(value) <= left:
                left -= len(value)
                return value
            taken = whole_words(value[: max(0, left)])
            left = 0
            return f"{taken}…[{len(value) - len(taken)} characters cut]"
        if isinstance(value, list):
            found: list[Any] = []
            for at, item in enumerate(value):
                if left <= 0:
                    return [*found, f"[{len(value) - at} items cut]"]
                found.append(walk(item))
                left -= 4  # JSON around it
            return found
        if isinstance(value, dict):
            kept: dict[str, Any] = {}
            for name, item in value.items():
                if left <= 0 and name not in ("role", "type", "index", "finish_reason"):
                    kept["cut"] = True
                    continue
                left -= len(name)
                kept[name] = walk(item)
            return kept
        left -= 8
        return value

    return walk(value)


def whole_words(text: str) -> str:
    """A text that was cut, without the word in which that happened and the words with digits before it: a number may
    have groups."""
    begin = max(0, len(text) - MAX_BROKEN)
    words = text[begin:].split(" ")
    size = len(words.pop())
    while words and (not words[-1] or any(char.isdigit() for char in words[-1])):
        size += 1 + len(words.pop())
    return text[: len(text) - size]


def _cut_value(value: Any, most: int) -> Any:
    if isinstance(value, list) and len(value) > 1 and not all(isinstance(item, int | float) for item in value[:8]):
        return _cut_list(value, most)
    return value if size_of(value) <= most else shortened(value, most)


def _cut_list(items: list[Any], most: int) -> list[Any]:
    first = shortened(items[0], most // 4)
    left = most - size_of(first)
    latest: list[Any] = []
    for at in range(len(items) - 1, 0, -1):
        size = size_of(items[at])
        if size > left:
            if left >= 2 * _LEAST and not latest:
                latest.append(shortened(items[at], left - _LEAST))
                at -= 1
            if at > 0:
                latest.append(_gap(items[0], at))
            break
        latest.append(items[at])
        left -= size
    return [first, *reversed(latest)]


def _gap(like: Any, count: int) -> Any:
    text = f"[{count} items cut]"
    return {"role": "cut", "content": text} if isinstance(like, dict) else text
