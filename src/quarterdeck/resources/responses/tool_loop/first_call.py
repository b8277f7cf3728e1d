"""`parallel_tool_calls: false`: a turn has one call, also of an engine that makes several. Pure."""

from collections.abc import Callable

from quarterdeck.resources.responses.deltas import Step

Route = Callable[[list[Step]], list[Step]]
"""Makes the response's steps of an answer's."""


class FirstCall:
    """Drops all calls of a turn but its first, then passes the steps on to `route`."""

    def __init__(self, route: Route | None) -> None:
        self._next = route
        self._index: int | None = None

    def route(self, steps: list[Step]) -> list[Step]:
        kept = []
        for step in steps:
            if step[0] == "call":
                if self._index is None:
                    self._index = step[1]
                if step[1] != self._index:
                    continue
            kept.append(step)
        return kept if self._next is None else self._next(kept)
