"""What a worker does for every org again and again, through every outage: what could not be done is there next time."""

import asyncio
from collections.abc import Callable, Sequence

from quarterdeck.net.redis import RedisError, RedisUnavailableError
from quarterdeck.store.database import DatabaseUnavailableError
from quarterdeck.worker.conditions import Condition, pause

Orgs = Callable[[], Sequence[str]]


class OrgLoop:
    """A turn over all orgs each `seconds`; `_visit` is what is done for one."""

    seconds: float

    def __init__(self, orgs: Orgs, condition: Condition) -> None:
        self._orgs = orgs
        self._condition = condition

    async def run(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            await self.turn()
            await pause(stop, self.seconds)

    async def turn(self) -> None:
        """Once over all orgs."""
        try:
            for org in self._orgs():
                await self._visit(org)
            self._condition.good()
        except (RedisUnavailableError, RedisError, DatabaseUnavailableError) as error:
            self._condition.bad(str(error))
        except Exception as error:  # a door, as the other loops: what nobody foresaw must not end the worker
            self._condition.bad(f"{type(error).__name__}: {error}", trace=error)

    async def _visit(self, org: str) -> None:
        raise NotImplementedError
