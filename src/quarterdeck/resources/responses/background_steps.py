"""How a background response goes on after its gateway has died: from its stored steps. Pure.

What a follower has been shown can't be taken back, and what comes next must not be another text. So steps are stored
as they come only where the rest of the answer can follow them: the model's reasoning, and a text that an engine can
continue. Others (calls of tools, structured answers, texts after reasoning) are stored when their turn is complete.
"""

from collections.abc import Sequence, Set
from typing import Any, Literal

from quarterdeck import ids
from quarterdeck.resources.responses.deltas import Step
from quarterdeck.resources.responses.event_mapper import EventMapper
from quarterdeck.resources.responses.objects import Response

BEGINNINGS = frozenset({"turn", "listed", "cut"})
"""Steps after which a turn begins: nothing is half said."""
BOUNDARIES = BEGINNINGS | {"pause"}
"""Steps after which an engine call begins. One after a pause continues what was said."""


class ItemIds:
    """Ids of a background response's items: the same each time that they are made of the same steps."""

    def __init__(self, response_id: str) -> None:
        self._response_id = response_id
        self._count = 0

    def __call__(self, prefix: str) -> str:
        self._count += 1
        return ids.derived_id(prefix, self._response_id, self._count)


def mapper_of(response: Response, *, shows_logprobs: bool, obfuscates: bool = False) -> EventMapper:
    """A mapper of a background response, to be fed from its first step on."""
    begun = {**response, "status": "queued", "output": [], "usage": None, "completed_at": None}
    begun |= {"incomplete_details": None, "error": None}
    return EventMapper(begun, ItemIds(response["id"]), shows_logprobs=shows_logprobs, obfuscates=obfuscates)


def storable(steps: Sequence[Step], *, is_continuable: bool) -> int:
    """How many of these steps may be stored and shown while the response runs. `is_continuable`: an engine can
    continue a text of this turn."""
    start = _last(steps, BOUNDARIES)
    if start == len(steps):
        return start
    kind = steps[start][0]
    if kind != "reasoning" and not (kind == "text" and is_continuable):
        return start
    end = start
    while end < len(steps) and steps[end][0] == kind:
        end += 1
    return end


def unfinished(steps: Sequence[Step]) -> tuple[Literal["nothing", "text", "reasoning"], str]:
    """What the stored steps of a turn that was interrupted amount to, and the text that has been shown."""
    rest = [step for step in steps[_last(steps, BEGINNINGS) :] if step[0] != "pause"]
    if not rest:
        return "nothing", ""
    if all(step[0] == "text" for step in rest):
        return "text", "".join(step[1] for step in rest)
    return "reasoning", ""


def turn_name(steps: Sequence[Step]) -> str:
    """What the next engine call is called in its request id: the same after a call that was cut off with its gateway,
    whose record is an estimate or missing; not after a call that has left its record."""
    counts = {kind: sum(step[0] == kind for step in steps) for kind in ("turn", "pause")}
    return f"{counts['turn']}.{counts['pause']}"


def ended_by_others(
    response: Response, steps: Sequence[Step], status: str, *, shows_logprobs: bool, error: dict[str, Any] | None = None
) -> Response:
    """The response object of one that was ended while it ran: with what it has said."""
    mapper = mapper_of(response, shows_logprobs=shows_logprobs)
    mapper.start()
    mapper.feed(list(steps))
    mapper.stop(status)
    mapper.response["error"] = error
    return mapper.response


def _last(steps: Sequence[Step], kinds: Set[str]) -> int:
    """The position after the last step of these kinds."""
    for index in range(len(steps) - 1, -1, -1):
        if steps[index][0] in kinds:
            return index + 1
    return 0
