"""Rebuilds budgets that Redis has lost, or never had, from the ledger.

*Reserve* finds no state for a scope's budget (Redis came back empty, the budget is new, its period was changed),
refuses as `cold` and adds it to `cold:{org}`. What was spent is the sum of the ledger's rows of the period and of the
records in the stream that are not rows yet; every settled record is in one of the two or, for a moment, in both. To
read that as of one moment without stopping requests:

1. `rebuilding:{org}` locks the stream: no record leaves it (`streams.commit` waits).
2. The ledger is summed, in a snapshot.
3. The budgets restart at 0 and count what is settled from now on (`Recount.begin`), which returns the stream's last
   entry. Requests in flight stay held.
4. The stream is read up to there; records that the snapshot has are skipped.
5. The sum is added, the budgets are trusted again and the lock is released (`Recount.finish`).

A worker that dies in between leaves a budget that is still cold: another starts again, from 0.
"""

import logging
from collections.abc import Iterator, Sequence

import msgspec

from quarterdeck.accounting.periods import PERIODS, period_start
from quarterdeck.accounting.recount import ColdBudget, Recount
from quarterdeck.accounting.redis_keys import stream_key
from quarterdeck.accounting.scopes import split_scope
from quarterdeck.ids import object_id
from quarterdeck.money import microdollars
from quarterdeck.net.redis import Redis
from quarterdeck.record import MIRROR, RequestRecord, decode
from quarterdeck.store.database import Database
from quarterdeck.store.spending import LedgerEntry, LedgerScope, Spending, spending
from quarterdeck.worker.conditions import Condition
from quarterdeck.worker.org_loop import OrgLoop, Orgs

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.25
"""Between two looks for cold budgets: the first request to a new budget waits for one, and for a sum."""
REBUILD_SECONDS = 60.0
"""What one rebuild may take; after that another worker may start again."""
ENTRIES_AT_ONCE = 1000
"""Entries of the stream read by one command."""


async def rebuild(redis: Redis, database: Database, org: str) -> int:
    """Rebuild an org's cold budgets. Returns how many. Raises where Redis or the database is away."""
    recount = Recount(redis, org, object_id("rebuild"))
    cold = await recount.cold_budgets()
    if not cold or not await recount.lock(REBUILD_SECONDS):
        return 0
    try:
        return await _rebuild(redis, database, org, cold, recount)
    finally:
        await recount.unlock()


async def _rebuild(redis: Redis, database: Database, org: str, cold: Sequence[ColdBudget], recount: Recount) -> int:
    async with spending(database, timeout=REBUILD_SECONDS / 2) as ledger:
        second = int((await redis.call("TIME", tag=org))[0])
        since = {period: period_start(period, second) for period in PERIODS[1:]}
        summed = await _sums(ledger, org, cold, since)
        begun = await recount.begin(cold)
        if begun is None:
            return 0
        records = await _records(redis, org, begun.last_entry)
        entered = await ledger.entries(org, list(records))
    if any(period_start(budget.period, begun.second) != since[budget.period] for budget in cold):
        return 0  # a period ended in between: the next look starts again
    spent: dict[ColdBudget, int] = {}
    for budget in cold:
        spent[budget] = summed[budget] + sum(
            missing(record, entered.get(id))
            for id, record in records.items()
            if record.started >= since[budget.period] and is_counted_in(record, budget.scope)
        )
    return await recount.finish(spent, begun)


def missing(record: RequestRecord, entered: LedgerEntry | None) -> int:
    """What a record in the stream adds to a sum over the ledger, in 10⁻⁶ $. Pure."""
    if entered is None:
        return microdollars(record.cost)
    if entered.status == "lost" and record.status != "lost":  # its row will be replaced
        return microdollars(record.cost) - microdollars(entered.cost)
    return 0


def is_counted_in(record: RequestRecord, scope: str) -> bool:
    """Whether a request is counted in a scope. A mirrored one is counted in none."""
    if record.key == MIRROR:
        return False
    kind, name, since = split_scope(scope)
    return kind == "org" or ((record.key if kind == "key" else record.team) == name and record.started >= since)


async def _sums(
    ledger: Spending, org: str, cold: Sequence[ColdBudget], since: dict[str, float]
) -> dict[ColdBudget, int]:
    """What the ledger says was spent of each budget, in 10⁻⁶ $."""
    spent: dict[ColdBudget, int] = {}
    for period, start in since.items():
        of_period = {budget.scope: budget for budget in cold if budget.period == period}
        if of_period:
            scopes = [LedgerScope(scope, *split_scope(scope)) for scope in of_period]
            sums = await ledger.of(org, scopes, start)
            spent |= {of_period[scope]: amount for scope, amount in sums.items()}
    return spent


async def _records(redis: Redis, org: str, last: bytes) -> dict[str, RequestRecord]:
    """Records in the stream up to an entry, by id; an estimate (`lost`) gives way to the facts."""
    records: dict[str, RequestRecord] = {}
    first = b"-"
    while entries := await redis.call("XRANGE", stream_key(org), first, last, "COUNT", ENTRIES_AT_ONCE):
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
        except (msgspec.DecodeError, UnicodeDecodeError):  # the ledger's loop sets it aside and logs it
            continue


class BudgetLoop(OrgLoop):
    """Rebuilds the cold budgets of every org."""

    def __init__(self, redis: Redis, database: Database, orgs: Orgs, condition: Condition) -> None:
        super().__init__(orgs, condition, LOOK_SECONDS)
        self._redis = redis
        self._database = database

    async def _visit(self, org: str) -> None:
        if count := await rebuild(self._redis, self._database, org):
            log.info("rebuilt %d budgets from the ledger", count, extra={"org": org})
