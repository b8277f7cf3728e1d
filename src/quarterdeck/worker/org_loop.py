"""A periodic task over all orgs that survives outages: what fails is retried in the next turn."""

import asyncio
from collections.abc import Callable, Sequence

from quarterdeck.net.redis import RedisError, RedisUnavailableError
from quarterdeck.store.database import DatabaseUnavailableError
from quarterdeck.worker.conditions import Condition, pause

Orgs = Callable[[], Sequence[str]]


class OrgLoop:
    """Calls `_visit` for each org every `seconds`."""

    def __init__(self, orgs: Orgs, condition: Condition, seconds: float) -> None:
        self._orgs = orgs
        self._condition = condition
        self._seconds = seconds

    async def run(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            await self.turn()
            await pause(stop, self._seconds)

    async def turn(self) -> None:
        """Visit every org once."""
        try:
            for org in self._orgs():
                await self._visit(org)
            self._condition.ok()
        except (RedisUnavailableError, RedisError, DatabaseUnavailableError) as error:
            self._condition.failed(str(error))
        except Exception as error:  # an error boundary, as in stream_loop: an unexpected error must not end the worker
            self._condition.failed(f"{type(error).__name__}: {error}", trace=error)

    async def _visit(self, org: str) -> None:
        raise NotImplementedError
