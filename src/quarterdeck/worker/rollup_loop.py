"""Rolls up the usage of hours that have ended, and of those to which late records were added."""

import time
from collections.abc import Callable

from quarterdeck.store.usage_rollups import Rollups
from quarterdeck.worker.conditions import Condition
from quarterdeck.worker.org_loop import OrgLoop, Orgs

ROLLUP_SECONDS = 60.0
"""Between two looks. Reports are exact before, too: they read the ledger where there is no roll-up."""
HOURS_AT_ONCE = 50
"""Of an organisation in one turn: a second or two. A ledger of a month is rolled up in a quarter of an hour."""


class RollupLoop(OrgLoop):
    def __init__(
        self,
        rollups: Rollups,
        orgs: Orgs,
        condition: Condition,
        *,
        seconds: float = ROLLUP_SECONDS,
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(orgs, condition, seconds)
        self._rollups = rollups
        self._clock = clock

    async def _visit(self, org: str) -> None:
        for _ in range(HOURS_AT_ONCE):
            if not await self._rollups.advance(org, self._clock()):
                return
