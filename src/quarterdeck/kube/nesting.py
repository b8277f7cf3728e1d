"""JSON that may be nested more deeply than Python can read.

The API server stores documents of 10,000 levels; Python's parser fails at a thousand, and what walks over a document
(comparing, copying, validating) fails sooner. One object of that kind would end every list and watch it is in. So text
is cut at `MAX_DEPTH` before it is parsed; `Resource.parse` refuses an object before it is deep enough to have been cut.
"""

import json
import re
from itertools import accumulate
from typing import Any

MAX_DEPTH = 100
"""Levels of a document. Kubernetes' own objects have twenty."""
CUT = b'"nested too deeply"'
"""Stands in place of what is cut off."""

_STRING = re.compile(rb'"(?:[^"\\]|\\.)*+"', re.DOTALL)
_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*+"|[\[\]{}]', re.DOTALL)
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_STEPS = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}


def loads(text: bytes) -> Any:
    """Parse JSON, without what is nested more deeply than MAX_DEPTH. Raises ValueError."""
    return json.loads(bounded(text))


def bounded(text: bytes) -> bytes:
    """JSON without what is nested more deeply than MAX_DEPTH."""
    brackets = _STRING.sub(b"", text).translate(None, _NOT_BRACKETS)
    if len(brackets) <= MAX_DEPTH or max(accumulate(map(_STEPS.__getitem__, brackets))) <= MAX_DEPTH:
        return text
    kept: list[bytes] = []
    level = start = 0
    for token in _TOKEN.finditer(text):
        step = _STEPS.get(token[0][0], 0)
        if step > 0 and level == MAX_DEPTH:
            kept += (text[start : token.start()], CUT)
        level += step
        if step < 0 and level == MAX_DEPTH:
            start = token.end()
    kept.append(text[start:] if level <= MAX_DEPTH else b"")
    return b"".join(kept)


def is_deeper_than(value: Any, levels: int) -> bool:
    """Whether a parsed value has more than so many levels of objects and lists. Of any depth itself."""
    level = [value]
    for _ in range(levels):
        level = [
            inner
            for each in level
            if isinstance(each, dict | list | tuple)
            for inner in (each.values() if isinstance(each, dict) else each)
        ]
        if not level:
            return False
    return any(isinstance(each, dict | list | tuple) for each in level)
