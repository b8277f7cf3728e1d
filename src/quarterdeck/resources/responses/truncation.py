"""`truncation: auto`: a conversation that is too long for the model loses its oldest turns. Pure."""

from collections.abc import Sequence

from quarterdeck.resources.responses.translation import Message

MAX_ROUNDS = 12
"""Each drops a quarter of the turns: enough for a hundred turns to become the last."""


def without_oldest(messages: Sequence[Message]) -> list[Message] | None:
    """Without the oldest quarter of the turns, at least one. System messages stay. A turn begins with a message of the
    user, so that a call and its output are dropped together. None: there is one turn only."""
    starts = [index for index, message in enumerate(messages) if message["role"] == "user"]
    if len(starts) < 2:
        return None
    dropped = max(1, len(starts) // 4)
    until = starts[dropped]
    kept = [message for message in messages[:until] if message["role"] == "system"]
    return [*kept, *messages[until:]]
