"""A periodic task over all orgs survives errors."""

import asyncio

import pytest

from quarterdeck.net.redis import RedisUnavailableError
from quarterdeck.worker.conditions import Condition
from quarterdeck.worker.org_loop import OrgLoop


class Visits(OrgLoop):
    def __init__(self, stop: asyncio.Event, errors: dict[str, Exception]) -> None:
        self.states: list[bool] = []
        super().__init__(lambda: ["acme", "default"], Condition("visits", self.states.append), 0.0)
        self.stop = stop
        self.errors = errors
        self.visited: list[str] = []

    async def _visit(self, org: str) -> None:
        self.visited.append(org)
        if len(self.visited) >= 4:
            self.stop.set()
        if (error := self.errors.pop(org, None)) is not None:
            raise error


@pytest.mark.parametrize("error", [RedisUnavailableError("no answer"), ValueError("unexpected")])
async def test_a_failed_visit_is_retried_in_the_next_turn(error: Exception) -> None:
    stop = asyncio.Event()
    loop = Visits(stop, {"default": error})
    async with asyncio.timeout(10):
        await loop.run(stop)
    assert loop.visited == ["acme", "default", "acme", "default"]
    assert loop.states == [True, False, True]
