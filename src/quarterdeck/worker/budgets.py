"""Budgets that Redis has lost, or never had, counted anew from the ledger.

*Reserve* finds no state for a scope's budget (Redis came back empty, the budget is new, its period was changed),
answers `cold` and names it in `cold:{org}`. What was spent is then: the ledger's rows of the period, and the records in
the stream that are no rows yet; every settled record is in one of the two or, for a moment, in both. So that this is
read as of one moment without stopping anybody:

1. While `rebuilding:{org}` is there no record leaves the stream (`streams.commit` waits).
2. The ledger is summed, in a snapshot.
3. RECOUNT, one script: the budgets begin at 0, and what is settled from now on they count themselves; it says which is
   the stream's last entry. Requests under way stay held.
4. The stream is read up to there; what the snapshot knows is left out.
5. ADD_UP, one script: the sum is added, the budget is trusted again, records may leave the stream.

A worker that dies on the way leaves a budget that is still cold: another begins again, from 0.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import msgspec

from quarterdeck.accounting.periods import period_start
from quarterdeck.accounting.scopes import PERIODS, cold_key, money_key, rebuilding_key, stream_key
from quarterdeck.accounting.scripts import ADD_UP, RECOUNT
from quarterdeck.ids import object_id
from quarterdeck.net.redis import Redis
from quarterdeck.record import MIRROR, RequestRecord, decode, microdollars
from quarterdeck.store.database import Database
from quarterdeck.store.spending import Entered, Spending, spending
from quarterdeck.worker.conditions import Condition
from quarterdeck.worker.org_loop import OrgLoop, Orgs

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.25
"""How often it is asked which budgets are cold: that, and a sum, is what the first request to a new budget waits."""
REBUILD_SECONDS = 60.0
"""What one rebuild may take; after that another worker may begin anew."""
PIECE = 1000
"""Entries of the stream read by one command."""


@dataclass(frozen=True, slots=True)
class ColdBudget:
    """One that has to be counted."""

    period: str
    scope: str


async def rebuild(redis: Redis, database: Database, org: str) -> int:
    """Count an org's cold budgets anew. Returns how many. Raises where Redis or the database is away."""
    cold = _cold(await redis.call("SMEMBERS", cold_key(org)))
    if not cold:
        return 0
    token, lock = object_id("rebuild"), rebuilding_key(org)
    if not await redis.call("SET", lock, token, "NX", "PX", round(REBUILD_SECONDS * 1000)):
        return 0
    try:
        return await _rebuild(redis, database, org, cold, token)
    finally:
        if await redis.call("GET", lock) == token.encode():
            await redis.call("DEL", lock)


async def _rebuild(redis: Redis, database: Database, org: str, cold: Sequence[ColdBudget], token: str) -> int:
    keys = [money_key(org, budget.scope) for budget in cold]
    kinds = [PERIODS.index(budget.period) for budget in cold]
    async with spending(database, timeout=REBUILD_SECONDS / 2) as ledger:
        second = int((await redis.call("TIME"))[0])
        since = {period: period_start(period, second) for period in PERIODS[1:]}
        spent = await _spent(ledger, org, cold, since)
        answer = await redis.run(RECOUNT, (rebuilding_key(org), stream_key(org), *keys), (token, *kinds))
        if not answer:
            return 0
        second, last = answer
        records = await _records(redis, org, last)
        entered = await ledger.entered(org, list(records))
    if any(period_start(budget.period, second) != since[budget.period] for budget in cold):
        return 0  # a period ended in between: once more
    words: list[str | int] = [token, second]
    for budget, kind in zip(cold, kinds, strict=True):
        more = sum(
            missing(record, entered.get(id))
            for id, record in records.items()
            if record.started >= since[budget.period] and is_of(record, budget.scope)
        )
        words += (kind, budget.scope, spent[budget] + more)
    return int(await redis.run(ADD_UP, (rebuilding_key(org), cold_key(org), *keys), words))


def missing(record: RequestRecord, entered: Entered | None) -> int:
    """What a record in the stream adds to a sum over the ledger, in 10⁻⁶ $. Pure."""
    if entered is None:
        return microdollars(record.cost)
    if entered.status == "lost" and record.status != "lost":  # its row will be replaced
        return microdollars(record.cost) - microdollars(entered.cost)
    return 0


def is_of(record: RequestRecord, scope: str) -> bool:
    """Whether a request is counted in a scope. A mirrored one is in none."""
    if record.key == MIRROR:
        return False
    kind, _, name = scope.partition(":")
    return kind == "org" or (record.key if kind == "key" else record.team) == name


async def _spent(
    ledger: Spending, org: str, cold: Sequence[ColdBudget], since: dict[str, float]
) -> dict[ColdBudget, int]:
    spent: dict[ColdBudget, int] = {}
    for period, start in since.items():
        of_period = {budget.scope: budget for budget in cold if budget.period == period}
        if of_period:
            sums = await ledger.of(org, list(of_period), start)
            spent |= {of_period[scope]: amount for scope, amount in sums.items()}
    return spent


async def _records(redis: Redis, org: str, last: bytes) -> dict[str, RequestRecord]:
    """What is in the stream up to an entry, by id; the truth where there is a guess beside it."""
    records: dict[str, RequestRecord] = {}
    first = b"-"
    while entries := await redis.call("XRANGE", stream_key(org), first, last, "COUNT", PIECE):
        for record in _readable(entries):
            if record.id not in records or records[record.id].status == "lost":
                records[record.id] = record
        milliseconds, _, number = entries[-1][0].partition(b"-")
        first = b"%s-%d" % (milliseconds, int(number) + 1)
    return records


def _readable(entries: Sequence[tuple[bytes, list[bytes]]]) -> Iterator[RequestRecord]:
    for _, fields in entries:
        try:
            yield decode(fields[1])
        except (msgspec.DecodeError, UnicodeDecodeError):  # set aside by the ledger's loop, which says so
            continue


def _cold(members: Sequence[bytes]) -> list[ColdBudget]:
    found = []
    for member in sorted(members):
        kind, _, scope = member.decode().partition(" ")
        found.append(ColdBudget(PERIODS[int(kind)], scope))
    return found


class BudgetLoop(OrgLoop):
    """Rebuilds what is cold, of every org."""

    def __init__(self, redis: Redis, database: Database, orgs: Orgs, condition: Condition) -> None:
        super().__init__(orgs, condition, LOOK_SECONDS)
        self._redis = redis
        self._database = database

    async def _visit(self, org: str) -> None:
        if count := await rebuild(self._redis, self._database, org):
            log.info("counted %d budgets anew from the ledger", count, extra={"org": org})
