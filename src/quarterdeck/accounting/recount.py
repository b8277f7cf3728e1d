"""Recounts budgets that Redis has lost or never had: the Redis half. `worker/budget_rebuild` adds up the ledger.

Between `begin` and `finish` the budgets count for themselves what is settled, and no record leaves the stream.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from quarterdeck.accounting.periods import PERIODS, period_kind
from quarterdeck.accounting.redis_keys import cold_key, money_key, rebuilding_key, stream_key
from quarterdeck.accounting.scripts import BEGIN_RECOUNT, FINISH_RECOUNT
from quarterdeck.net.redis import Redis


@dataclass(frozen=True, slots=True)
class ColdBudget:
    """A budget that has to be recounted."""

    period: str
    """The kind of its period."""
    scope: str


@dataclass(frozen=True, slots=True)
class Begun:
    """The moment at which a recount began."""

    second: int
    """By Redis' clock, Unix."""
    last_entry: bytes
    """The id of the last entry in the stream."""


class Recount:
    """A recount of budgets of one org by one worker, which `token` names. All methods raise as `Redis.call`."""

    def __init__(self, redis: Redis, org: str, token: str) -> None:
        self._redis = redis
        self._org = org
        self._token = token

    async def cold_budgets(self) -> list[ColdBudget]:
        """Budgets that wait for a recount."""
        found = []
        for member in sorted(await self._redis.call("SMEMBERS", cold_key(self._org))):
            kind, _, scope = member.decode().partition(" ")
            found.append(ColdBudget(PERIODS[int(kind)], scope))
        return found

    async def lock(self, seconds: float) -> bool:
        """Take the org's lock for so long. False: another worker has it."""
        words = ("SET", rebuilding_key(self._org), self._token, "NX", "PX", round(seconds * 1000))
        return bool(await self._redis.call(*words))

    async def unlock(self) -> None:
        """Release the lock where it is still ours."""
        lock = rebuilding_key(self._org)
        if await self._redis.call("GET", lock) == self._token.encode():
            await self._redis.call("DEL", lock)

    async def begin(self, cold: Sequence[ColdBudget]) -> Begun | None:
        """Restart the budgets at 0. None: another worker has the lock."""
        keys = (rebuilding_key(self._org), stream_key(self._org), *self._money_keys(cold))
        kinds = [period_kind(budget.period) for budget in cold]
        answer = await self._redis.run(BEGIN_RECOUNT, keys, (self._token, *kinds))
        return Begun(*answer) if answer else None

    async def finish(self, spent: dict[ColdBudget, int], begun: Begun) -> int:
        """Add what was spent before the recount began, in 10⁻⁶ $, trust the budgets again and release the lock.

        Returns how many were recounted: those that were lost or changed meanwhile stay cold.
        """
        keys = (rebuilding_key(self._org), cold_key(self._org), *self._money_keys(list(spent)))
        arguments: list[str | int] = [self._token, begun.second]
        for budget, amount in spent.items():
            arguments += (period_kind(budget.period), budget.scope, amount)
        return int(await self._redis.run(FINISH_RECOUNT, keys, arguments))

    def _money_keys(self, budgets: Sequence[ColdBudget]) -> list[str]:
        return [money_key(self._org, budget.scope) for budget in budgets]
