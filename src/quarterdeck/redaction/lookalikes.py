"""Characters that stand for ASCII ones: a card number copied from a web page has no-break spaces, one from a document
has typographic hyphens, and what is invisible may stand anywhere. Rules are written for ASCII.

Not the punctuation of Chinese and Japanese: each sentence has it, and nothing that a rule finds does.
"""

import re
from itertools import chain
from string import ascii_letters, digits

_SPACES = (0x00A0, *range(0x2000, 0x200B), 0x202F, 0x205F, 0x3000)
_HYPHENS = (*range(0x2010, 0x2016), 0x2212, 0xFE58, 0xFE63)
_INVISIBLE = (
    *(0x00AD, 0x034F, 0x061C, 0x180E, 0xFEFF),
    *chain(range(0x200B, 0x2010), range(0x202A, 0x202F), range(0x2060, 0x2065), range(0x2066, 0x206A)),
    *range(0xFE00, 0xFE10),
)
"""Zero-width characters, soft hyphens, marks of direction, variation selectors."""
_ZEROS = (0x0660, 0x06F0, 0x0966, 0x09E6, 0x0E50)
"""Of Arabic, Persian, Devanagari, Bengali and Thai digits."""

_ASCII = {
    **{chr(code): " " for code in _SPACES},
    **{chr(code): "-" for code in _HYPHENS},
    **{chr(code): "" for code in _INVISIBLE},
    **{chr(zero + digit): str(digit) for zero in _ZEROS for digit in range(10)},
    **{chr(ord(each) + 0xFEE0): each for each in f"{ascii_letters}{digits}@+-._:=/"},  # full-width forms
    "\ufe6b": "@",
    "\u2024": ".",
}
_ANY = re.compile("[" + "".join(map(re.escape, _ASCII)) + "\U000e0000-\U000e007f]")
"""Also tags, which show nothing: a range, as single characters of other planes slow the search down."""


def read_as_ascii(text: str) -> str:
    """The text with these characters replaced by the ASCII ones that they stand for; the same object if it has none."""
    if text.isascii():
        return text
    return _ANY.sub(lambda match: _ASCII.get(match[0], ""), text)
