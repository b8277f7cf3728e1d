"""The events of a stored response, made again of its steps. Pure."""

from quarterdeck.ids import object_id
from quarterdeck.resources.responses.deltas import Step
from quarterdeck.resources.responses.event_mapper import INCOMPLETE, EventMapper
from quarterdeck.resources.responses.objects import Response


def replay(response: Response, steps: list[Step], *, shows_logprobs: bool, obfuscates: bool = False) -> list[bytes]:
    """The events of a stored response that has ended, as they were sent, by sequence number."""
    given = iter([item["id"] for item in response["output"]])
    begun = {**response, "status": "in_progress", "output": [], "usage": None, "completed_at": None}
    mapper = EventMapper(
        begun | {"incomplete_details": None, "error": None},
        lambda prefix: next(given, "") or object_id(prefix),
        shows_logprobs=shows_logprobs,
        obfuscates=obfuscates,
    )
    events = mapper.start() + mapper.feed(steps)
    if response["status"] == "completed" or response["incomplete_details"] is not None:
        reason = (response["incomplete_details"] or {}).get("reason")
        events += mapper.conclude(next((name for name, said in INCOMPLETE.items() if said == reason), None), None, 0.0)
    mapper.response = response
    return [event + b"\n\n" for event in (events + mapper.last_event()).split(b"\n\n")[:-1]]
