"""Contents are deleted when they are too old, and recent deletions are repeated."""

from tests.records import a_record
from tests.worker.bench import ALL, ORG, Bench

from quarterdeck.content import Content
from quarterdeck.settings.config import Config
from quarterdeck.settings.loading import parse
from quarterdeck.store.batch_retention import BatchRetention
from quarterdeck.store.contents import ContentStore
from quarterdeck.store.ledger import Ledger
from quarterdeck.store.ledger_retention import LedgerRetention
from quarterdeck.store.org_deletion import OrgDeletion
from quarterdeck.store.orgs import OrgStore
from quarterdeck.store.stored_objects import StoredObjects
from quarterdeck.store.usage_rollups import Rollups
from quarterdeck.worker.conditions import Condition
from quarterdeck.worker.retention_loop import DAY, RetentionLoop

CONFIG = "models: [{name: m, endpoints: [{url: 'http://unused'}]}]\ncontent: {retention_days: 10}\n"
NOW = 100 * DAY
TEXT = Content(level="full", input=b"{}")


def a_loop(bench: Bench, config: Config | None, *orgs: str, now: float = NOW) -> RetentionLoop:
    store, org_store = ContentStore(bench.database), OrgStore(bench.database)
    return RetentionLoop(
        store,
        StoredObjects(bench.database),
        BatchRetention(bench.database),
        LedgerRetention(bench.database),
        org_store,
        bench.redis,
        ["tempo"],
        lambda: config,
        lambda: orgs or (ORG,),
        Condition("deleting contents"),
        wall=lambda: now,
    )


async def ages(bench: Bench, org: str = ORG) -> list[int]:
    """Ages in days of what is left of contents that were 1, 5, 9, 11 and 50 days old."""
    store = ContentStore(bench.database)
    left = []
    for days in (1, 5, 9, 11, 50):
        record = a_record(id=f"req_{org}_{days}", org=org, started=NOW - days * DAY)
        if await store.retrieve([record.id], org=org):
            left.append(days)
    return left


async def fill(bench: Bench, org: str = ORG) -> None:
    records = [a_record(id=f"req_{org}_{days}", org=org, started=NOW - days * DAY) for days in (1, 5, 9, 11, 50)]
    await ContentStore(bench.database).insert([(record, TEXT) for record in records])


async def test_contents_older_than_the_setting_are_deleted(any_bench: Bench) -> None:
    await fill(any_bench)
    await a_loop(any_bench, parse(CONFIG)).turn()
    assert await ages(any_bench) == [1, 5, 9]


async def test_an_organisation_may_have_its_own_days(bench: Bench) -> None:
    await OrgStore(bench.database).create("acme", content_days=2)
    await OrgStore(bench.database).create("hooli", content_days=20)
    for org in (ORG, "acme", "hooli"):
        await fill(bench, org)
    await a_loop(bench, parse(CONFIG + "org: {content_days: 6}\n"), ORG, "acme", "hooli").turn()
    assert [await ages(bench, org) for org in (ORG, "acme", "hooli")] == [[1, 5], [1], [1, 5, 9, 11]]


async def test_contents_of_a_deleted_organisation_are_deleted_also_those_that_come_later(any_bench: Bench) -> None:
    await OrgStore(any_bench.database).create("acme")
    await OrgDeletion(any_bench.database).delete("acme", revoke_keys=False, author="key_x")
    for _ in range(2):
        for org in (ORG, "acme"):
            await fill(any_bench, org)
        await a_loop(any_bench, parse(CONFIG), ORG, "acme").turn()
        assert [await ages(any_bench, org) for org in (ORG, "acme")] == [[1, 5, 9], []]


async def test_nothing_is_deleted_by_age_while_the_configuration_is_not_known(bench: Bench) -> None:
    await fill(bench)
    await a_loop(bench, None).turn()
    assert await ages(bench) == [1, 5, 9, 11, 50]


async def test_a_content_that_was_stored_just_after_its_deletion_is_deleted(bench: Bench) -> None:
    store = ContentStore(bench.database)
    deletion, _ = await store.delete("user", "u", org=ORG, key="key_1")
    record = a_record(user="u", started=deletion.at - 1)
    await store.insert([(record, TEXT)])  # by a worker that had read the deletions before
    await a_loop(bench, parse(CONFIG), now=deletion.at + 5).turn()
    assert await store.retrieve([record.id], org=ORG) == {}


async def test_the_ledger_is_kept_unless_its_days_are_set(any_bench: Bench) -> None:
    records = [a_record(id=f"req_{days}", started=NOW - days * DAY) for days in (1, 5, 20, 50)]
    ledger, rollups = Ledger(any_bench.database, clock=lambda: NOW), Rollups(any_bench.database)
    await ledger.insert(records)
    await ContentStore(any_bench.database).insert([(record, TEXT) for record in records])
    while await rollups.advance(ORG, NOW):
        pass
    await a_loop(any_bench, parse(CONFIG.replace("10", "40"))).turn()
    assert len(await ledger.list(ALL)) == 4
    await a_loop(any_bench, parse(CONFIG.replace("10", "40") + "ledger: {retention_days: 3}\n")).turn()
    assert [record.id for record in await ledger.list(ALL)] == ["req_1"]
    assert list(await ContentStore(any_bench.database).retrieve([r.id for r in records], org=ORG)) == ["req_1"]
    (usage,) = await ledger.sum(ALL)
    assert usage.requests == 4
