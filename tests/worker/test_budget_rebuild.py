"""Budgets that Redis does not know are rebuilt from ledger and stream, each request counted once, under traffic."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from decimal import Decimal

import pytest
from tests.accounting.spending import ORG, a_bill, a_reservation, a_scope, dollars, money, reserve, settle, trust
from tests.records import a_record
from tests.worker.steps import Steps

from quarterdeck.accounting import commit
from quarterdeck.accounting.periods import period_start
from quarterdeck.accounting.redis_keys import cold_key, money_key, rebuilding_key, stream_key
from quarterdeck.accounting.scopes import Scope, ScopeSet, team_scope
from quarterdeck.money import microdollars
from quarterdeck.net.redis import Redis
from quarterdeck.record import MIRROR, RequestRecord, decode, encode
from quarterdeck.resources.tenancy.changes import Change, RedisPublisher
from quarterdeck.store.database import Database
from quarterdeck.store.ledger import Ledger
from quarterdeck.store.spending import Spending
from quarterdeck.worker import budget_rebuild
from quarterdeck.worker.budget_rebuild import BudgetLoop, rebuild
from quarterdeck.worker.conditions import Condition
from quarterdeck.worker.streams import Consumer

KEY = "key:key_1"


@dataclass
class Books:
    """Redis, the ledger, and the consumer that moves records from one to the other."""

    redis: Redis
    database: Database
    consumer: Consumer

    async def enter(self, *records: RequestRecord) -> None:
        await Ledger(self.database).insert(records)

    async def append(self, *records: RequestRecord) -> None:
        for record in records:
            await self.redis.call("XADD", stream_key(ORG), "*", "record", encode(record))

    async def project(self, count: int = 100) -> int:
        """Project a batch from the stream into the ledger, as the ledger loop does."""
        entries = await self.consumer.read(self.redis, [ORG], count=count, block_ms=1)
        if entries:
            await self.enter(*[decode(entry.data) for entry in entries if entry.data is not None])
            await self.consumer.commit(ORG, [entry.id for entry in entries])
        return len(entries)

    async def rebuild(self) -> int:
        return await rebuild(self.redis, self.database, ORG)


@pytest.fixture
async def books(redis: Redis, database: Database) -> Books:
    consumer = Consumer(redis, "ledger", "worker_a", idle_ms=0)
    await consumer.join([ORG])
    return Books(redis, database, consumer)


@pytest.fixture
async def sqlite_books(redis: Redis, sqlite_url: str) -> AsyncIterator[Books]:
    database = Database(sqlite_url)
    await database.migrate()
    consumer = Consumer(redis, "ledger", "worker_a", idle_ms=0)
    await consumer.join([ORG])
    yield Books(redis, database, consumer)
    await database.close()


def spent(cost: str, **changes: object) -> RequestRecord:
    return a_record(**({"cost": Decimal(cost), "key": "key_1", "team": "red"} | changes))


async def test_what_was_spent_is_ledger_and_stream_each_request_rounded_up_and_once(books: Books) -> None:
    scopes = [a_scope(KEY, 10**6), a_scope("team:red", 10**6), a_scope("org", 10**6)]
    both = spent("0.000003")
    await books.enter(spent("0.0000015"), spent("0.0000015"), both, spent("0.1", org="elsewhere"))
    await books.enter(spent("0.00001", key="key_2"), spent("0.0001", key="key_3", team="blue"))
    await books.append(both, spent("0.000020"), spent("0.000300", key="key_2"))
    assert (await reserve(books.redis, scopes, 1))[1].refused == "cold"
    for _ in scopes[1:]:  # one at a time: a scope is found cold once those before it are known
        assert await books.rebuild() == 1
        assert (await reserve(books.redis, scopes, 1))[1].refused == "cold"
    assert await books.rebuild() == 1
    found = [(await money(books.redis, scope.id)).spent for scope in scopes]
    assert found == [4 + 3 + 20, 4 + 3 + 20 + 10 + 300, 4 + 3 + 20 + 10 + 300 + 100]
    assert (await reserve(books.redis, scopes, 1))[1].refused is None
    assert await books.rebuild() == 0
    assert await books.redis.call("EXISTS", rebuilding_key(ORG), cold_key(ORG)) == 0


async def test_a_team_of_a_deleted_ones_name_has_spent_nothing_of_it(books: Books) -> None:
    made = int(time.time()) - 10
    scopes = [a_scope(team_scope("red", float(made)), 10**6), a_scope("team:red", 10**6)]
    await books.enter(spent("0.000100", started=made - 1.0), spent("0.000020", started=made + 1.0))
    await books.append(spent("0.001000", started=made - 1.0), spent("0.000003", started=made + 1.0))
    for scope, expected in zip(scopes, (23, 1123), strict=True):
        assert (await reserve(books.redis, [scope], 1))[1].refused == "cold"
        assert await books.rebuild() == 1
        assert (await money(books.redis, scope.id)).spent == expected


async def test_mirrored_requests_are_on_nobodys_budget_after_a_recount_either(books: Books) -> None:
    mirrored = {"key": MIRROR, "team": MIRROR}
    await books.enter(spent("0.000003"), spent("0.5", **mirrored))
    await books.append(spent("0.000020"), spent("0.5", **mirrored))
    for scope, expected in (("org", 23), (f"team:{MIRROR}", 0)):
        assert (await reserve(books.redis, [a_scope(scope, 10**6)], 1))[1].refused == "cold"
        assert await books.rebuild() == 1
        assert (await money(books.redis, scope)).spent == expected


@pytest.mark.parametrize("period", ["day", "week", "month"])
async def test_only_what_began_in_the_period_counts(books: Books, period: str) -> None:
    start = period_start(period, int((await books.redis.call("TIME"))[0]))
    await books.enter(spent("1", started=start - 0.001), spent("0.000005", started=start))
    await books.append(spent("1", started=start - 0.001), spent("0.000007", started=start + 0.5))
    assert (await reserve(books.redis, [a_scope(KEY, 1000, period=period)], 1))[1].refused == "cold"
    assert await books.rebuild() == 1
    assert (await money(books.redis, KEY)).spent == 12


async def test_a_guess_in_the_ledger_gives_way_to_the_truth_in_the_stream(sqlite_books: Books) -> None:
    books, guess = sqlite_books, spent("0.000100", status="lost")
    truth = spent("0.000030", id=guess.id)
    await books.enter(guess)
    await books.append(guess, truth)
    await reserve(books.redis, [a_scope(KEY, 1000)], 1)
    assert await books.rebuild() == 1
    assert (await money(books.redis, KEY)).spent == 30


async def test_what_is_under_way_stays_held(sqlite_books: Books) -> None:
    books, scope = sqlite_books, a_scope(KEY, 1000, warns=True)
    await books.enter(spent("0.000100"))
    reservation, _ = await reserve(books.redis, [scope], 400)
    other, _ = await reserve(books.redis, [scope], 40)
    await settle(books.redis, other, dollars(9))
    assert await books.rebuild() == 1
    state = await money(books.redis, KEY)
    assert (state.spent, state.held, state.is_cold) == (109, 400, False)
    await settle(books.redis, reservation, dollars(7))
    assert (await money(books.redis, KEY)).spent == 116


async def test_one_worker_at_a_time_counts(sqlite_books: Books) -> None:
    books = sqlite_books
    await reserve(books.redis, [a_scope(KEY, 1000)], 1)
    await books.redis.call("SET", rebuilding_key(ORG), "another", "PX", 60_000)
    assert await books.rebuild() == 0
    assert await books.redis.call("GET", rebuilding_key(ORG)) == b"another"
    await books.redis.call("DEL", rebuilding_key(ORG))
    assert sorted(await asyncio.gather(*[books.rebuild() for _ in range(4)]))[-1] == 1
    assert not (await money(books.redis, KEY)).is_cold


async def test_one_that_died_on_the_way_is_begun_anew(sqlite_books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    books, scope = sqlite_books, a_scope(KEY, 1000)
    await books.enter(spent("0.000100"))
    await books.append(spent("0.000010"))
    await reserve(books.redis, [scope], 1)
    with monkeypatch.context() as patch:
        patch.setattr(budget_rebuild, "_records", None)
        with suppress(TypeError):
            await books.rebuild()
    assert (await money(books.redis, KEY)).is_cold
    await settle(books.redis, a_reservation(ScopeSet(ORG, (scope,)), 0), dollars(5))
    assert (await reserve(books.redis, [scope], 1))[1].refused == "cold"
    assert await books.rebuild() == 1
    assert (await money(books.redis, KEY)).spent == 115


async def test_one_that_was_lost_while_it_was_counted_is_counted_again(
    sqlite_books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was settled between the recount and the loss is in neither sum."""
    books, scope = sqlite_books, a_scope(KEY, 1000, warns=True)
    await books.enter(spent("0.000100"))
    reservation, _ = await reserve(books.redis, [scope], 1)
    records = budget_rebuild._records

    async def lose_and_read(redis: Redis, org: str, last: bytes) -> dict[str, RequestRecord]:
        await settle(redis, reservation, dollars(5))
        await redis.call("DEL", money_key(org, KEY))
        await reserve(redis, [scope], 1)
        return await records(redis, org, last)

    with monkeypatch.context() as patch:
        patch.setattr(budget_rebuild, "_records", lose_and_read)
        assert await books.rebuild() == 0
    assert (await money(books.redis, KEY)).is_cold
    await reserve(books.redis, [scope], 1)
    assert await books.rebuild() == 1
    assert (await money(books.redis, KEY)).spent == 105


async def test_a_database_that_is_away_leaves_budgets_cold(sqlite_books: Books, tmp_path: object) -> None:
    books = sqlite_books
    await reserve(books.redis, [a_scope(KEY, 1000)], 1)
    states: list[bool] = []
    condition = Condition("counting", states.append)
    away = Database(f"sqlite+aiosqlite:///{tmp_path}/nowhere/at/all.db")
    await BudgetLoop(books.redis, away, lambda: [ORG], condition).turn()
    assert states == [True, False]
    assert await books.redis.call("EXISTS", rebuilding_key(ORG)) == 0
    assert (await reserve(books.redis, [a_scope(KEY, 1000)], 1))[1].refused == "cold"
    await BudgetLoop(books.redis, books.database, lambda: [ORG], condition).turn()
    assert states == [True, False, True]
    assert (await reserve(books.redis, [a_scope(KEY, 1000)], 1))[1].refused is None
    await away.close()


@pytest.mark.parametrize("seed", range(4))
async def test_counted_while_requests_are_settled_and_projected(books: Books, seed: int) -> None:
    """Settle, project, lose the state and recount concurrently: the sum is exact."""
    dice = random.Random(seed)
    scopes = (Scope(KEY, a_scope(KEY, 1).limits), a_scope("team:default", 10**9, warns=True))
    total = 0

    async def requests() -> None:
        nonlocal total
        for _ in range(60):
            reservation, admitted = await reserve(books.redis, scopes, dice.randrange(1, 99))
            assert admitted.refused is None
            cost = Decimal(dice.randrange(1, 10**9)).scaleb(-12)
            await settle(books.redis, reservation, cost)
            total += microdollars(cost)

    async def projecting() -> None:
        for _ in range(25):
            await books.project(dice.randrange(1, 20))

    async def losing() -> None:
        for _ in range(8):
            await books.redis.call("DEL", money_key(ORG, "team:default"))
            await books.rebuild()
            await books.rebuild()

    await asyncio.gather(requests(), requests(), projecting(), losing())
    await reserve(books.redis, scopes, 1)
    while (await money(books.redis, "team:default")).is_cold:
        await books.rebuild()
    assert (await money(books.redis, "team:default")).spent == total
    bill = a_bill(a_reservation(ScopeSet(ORG, scopes), 0), dollars(3))
    await commit.settle(books.redis, bill, ScopeSet(ORG, scopes))
    assert (await money(books.redis, "team:default")).spent == total + 3


@pytest.mark.parametrize("seed", range(12))
async def test_counted_in_whatever_order_the_steps_of_all_come(
    sqlite_books: Books, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Two gateways and two workers that take over from one another, die, time out, and lose the state meanwhile.

    Each request costs a power of two, so that a sum that is wrong tells which were missed or counted twice."""
    dice = random.Random(seed)
    steps = Steps(dice)
    redis, plain = steps.of_redis(sqlite_books.redis), sqlite_books.redis
    for owner, name in ((Ledger, "insert"), (Spending, "of"), (Spending, "entries")):
        monkeypatch.setattr(owner, name, steps.of(getattr(owner, name)))
    database, team = sqlite_books.database, "team:default"
    scopes = (a_scope(team, 10**9, warns=True),)
    costs = [dollars(2**n) for n in range(10)]
    total = sum(microdollars(cost) for cost in costs)

    async def gateway(costs: Sequence[Decimal]) -> None:
        for cost in costs:
            reservation, _ = await reserve(redis, scopes, 50)
            if dice.random() < 0.3:
                await settle(redis, reservation, 7 * cost, status="lost")
            for _ in range(dice.randrange(1, 3)):
                await settle(redis, reservation, cost)

    async def worker(name: str) -> None:
        consumer = Consumer(redis, "ledger", name, idle_ms=0, rebuilding_seconds=0)
        for _ in range(5):
            entries = await consumer.claim(ORG, count=3) if dice.random() < 0.3 else []
            entries = entries or await consumer.read(redis, [ORG], count=dice.randrange(1, 6), block_ms=1)
            await Ledger(database).insert([decode(entry.data) for entry in entries if entry.data is not None])
            if dice.random() < 0.9:  # else it dies here, before it acknowledges
                await consumer.commit(ORG, [entry.id for entry in entries])

    async def counting() -> None:
        for _ in range(5):
            await rebuild(redis, database, ORG)

    async def losing(key: str) -> None:
        for _ in range(6):
            await redis.call("DEL", key)

    keys = (money_key(ORG, team), rebuilding_key(ORG))
    gateways, workers = (gateway(costs[:5]), gateway(costs[5:])), (worker("a"), worker("b"))
    await steps.run(*gateways, *workers, counting(), counting(), *map(losing, keys))
    await reserve(plain, scopes, 1)
    while (await money(plain, team)).is_cold:
        await rebuild(plain, database, ORG)
    assert (await money(plain, team)).spent == total


@pytest.mark.parametrize(
    ("change", "scope"),
    [(Change(ORG, key="key_1"), KEY), (Change(ORG, team="red"), "team:red"), (Change(ORG), "org")],
)
async def test_what_an_admin_changed_is_counted_anew(sqlite_books: Books, change: Change, scope: str) -> None:
    """Its budget may have been removed for a while, when it was not counted."""
    books = sqlite_books
    await RedisPublisher(books.redis).publish(change)
    assert await books.rebuild() == 0
    budget = a_scope(scope, 1000, period="total")
    await trust(books.redis, budget, spent=5)
    await books.enter(spent("0.000100"))
    await RedisPublisher(books.redis).publish(change)
    assert (await reserve(books.redis, [budget], 1))[1].refused is None
    assert await books.rebuild() == 1
    state = await money(books.redis, scope)
    assert (state.spent, state.held, state.is_cold) == (100, 1, False)


async def test_what_an_admin_changed_while_it_was_counted_is_counted_once_more(
    sqlite_books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Removed and set again during one rebuild: what was settled in between is in neither of its halves."""
    books, team = sqlite_books, a_scope("team:red", 10**6)
    await trust(books.redis, team, spent=100)
    await books.enter(a_record(team="red", cost=dollars(100)))
    publisher = RedisPublisher(books.redis)
    await publisher.publish(Change(ORG, team="red"))  # the budget is removed
    records = budget_rebuild._records

    async def meanwhile(redis: Redis, org: str, last: str) -> object:
        free, _ = await reserve(redis, [], 0)
        await settle(redis, free, dollars(40), team="red")
        await publisher.publish(Change(ORG, team="red"))  # and set again
        return await records(redis, org, last)

    monkeypatch.setattr(budget_rebuild, "_records", meanwhile)
    assert await books.rebuild() == 0
    monkeypatch.undo()
    await reserve(books.redis, [team], 1)
    assert await books.rebuild() == 1
    assert (await money(books.redis, "team:red")).spent == 140
