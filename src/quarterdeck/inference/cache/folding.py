"""A stream's bytes without what they repeat. Pure; what is folded unfolds to the very same bytes.

Nine tenths of a stream stand between one event's text and the next one's, and are the same each time: the *joint*.
Folded, each is one NUL, which no JSON holds. The joint is guessed from two events in the middle, and the bytes between
its ends are not read; so a folded stream is unfolded once before it is believed, and a wrong guess costs only room.
"""

import re
from functools import lru_cache

NUL = b"\x00"
MAX_BYTES = 4 * 1024 * 1024
"""A longer stream stays as it is; so nothing unfolds to more, whatever an entry claims."""
NEARBY_BYTES = 4096
"""How far from the middle two events are looked for; no joint is longer."""
LEAST_JOINT_BYTES = 32
HEAD_BYTES, TAIL_BYTES = 2, 4
"""Of a joint, by which it is found; together with its length they are in no other place of a usual stream."""

_TEXT = re.compile(
    rb'("(?:content|text|arguments|reasoning(?:_content)?)": ?")[^"\\]*+(?:\\.[^"\\]*+)*+"',
    re.DOTALL,
)
"""A member that engines write a token to: how it opens, and its text."""


def fold(body: bytes) -> tuple[bytes, bytes]:
    """The stream folded, and its joint; the stream itself and an empty one where nothing would be won."""
    joint = _joint(body)
    size = len(joint)
    if size >= LEAST_JOINT_BYTES:
        # A third of what `replace` takes: that prepares its search anew for each joint.
        folded = NUL.join(_like(joint[:HEAD_BYTES], size, joint[-TAIL_BYTES:]).split(body))
        if len(folded) + size < len(body) <= MAX_BYTES and folded.replace(NUL, joint) == body:
            return folded, joint
    return body, b""


def unfold(folded: bytes, joint: bytes, size: int) -> bytes | None:
    """What was folded; None where it would not have that size, or more than is ever folded. Nothing is made then."""
    if size > MAX_BYTES or size != len(folded) + folded.count(NUL) * (len(joint) - 1):
        return None
    return folded.replace(NUL, joint)


def _joint(body: bytes) -> bytes:
    """What stands between two texts in the middle; empty where there are none."""
    middle = len(body) // 2
    end = middle + NEARBY_BYTES
    found = _TEXT.search(body, middle, end)
    if found is None:
        return b""
    opening, close = found[1], found.end() - 1
    return body[close : body.find(opening, close, end) + len(opening)]  # not found: it ends before it begins


@lru_cache(maxsize=256)
def _like(head: bytes, size: int, tail: bytes) -> re.Pattern[bytes]:
    """Whatever begins, ends and is as long as a joint: an engine's are, though each stream's has another id."""
    between = size - len(head) - len(tail)
    return re.compile(b"%b.{%d}%b" % (re.escape(head), between, re.escape(tail)), re.DOTALL)
