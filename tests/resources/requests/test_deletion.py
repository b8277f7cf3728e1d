"""Content is deleted wherever it is, and what was under way does not bring it back."""

import pytest
from tests.records import a_record

from quarterdeck.accounting import commit
from quarterdeck.accounting.redis_keys import content_key
from quarterdeck.accounting.scopes import ScopeSet
from quarterdeck.content import Content, encode
from quarterdeck.net.redis import Redis
from quarterdeck.record import RequestRecord
from quarterdeck.resources.requests.deletion import ContentDeletion
from quarterdeck.store.contents import ContentStore, DeleteBy
from quarterdeck.store.database import Database
from quarterdeck.store.stored_objects import StoredObjects

ORG = "default"
CONTENT = Content(level="full", input=b'{"messages":[]}', output=b"[]")


async def a_waiting(redis: Redis, **changes: object) -> RequestRecord:
    """A record with a content that waits for the worker."""
    record = a_record(content="full", **changes)
    assert await commit.settle(redis, record, ScopeSet(record.org), encode(CONTENT))
    return record


async def waits(redis: Redis, record: RequestRecord) -> bool:
    return bool(await redis.call("EXISTS", content_key(record.org, record.id)))


@pytest.mark.parametrize("by", ["request", "user", "session"])
async def test_stored_and_waiting_contents_are_deleted_and_others_stay(
    redis: Redis, database: Database, by: DeleteBy
) -> None:
    store = ContentStore(database)
    stored = [a_record(started=1.0, user=user, session=session) for user, session in (("u", "s"), ("v", "t"))]
    await store.insert([(record, CONTENT) for record in stored])
    elsewhere = a_record(org="acme", started=1.0, user="u", session="s")
    await store.insert([(elsewhere, CONTENT)])
    waiting = [
        await a_waiting(redis, started=1.0, user=user, session=session) for user, session in (("u", "s"), ("v", "t"))
    ]
    value = {"request": stored[0].id, "user": "u", "session": "s"}[by]
    deletion = ContentDeletion(store, StoredObjects(database), redis)
    assert await deletion.delete(by, value, org=ORG, key="key_1") == (1 if by == "request" else 2)
    assert set(await store.retrieve([record.id for record in stored], org=ORG)) == {stored[1].id}
    assert [await waits(redis, record) for record in waiting] == [by == "request", True]
    assert set(await store.retrieve([elsewhere.id], org="acme")) == {elsewhere.id}
    assert await deletion.delete(by, value, org=ORG, key="key_1") == 0


async def test_a_waiting_request_is_deleted_by_its_id(redis: Redis, database: Database) -> None:
    record = await a_waiting(redis)
    assert (
        await ContentDeletion(ContentStore(database), StoredObjects(database), redis).delete(
            "request", record.id, org=ORG, key="key_1"
        )
        == 1
    )
    assert not await waits(redis, record)


async def test_without_redis_the_deletion_is_still_recorded(database: Database) -> None:
    away = Redis("redis://127.0.0.1:1/0")
    store = ContentStore(database)
    assert await ContentDeletion(store, StoredObjects(database), away).delete("user", "u", org=ORG, key="key_1") == 0
    (deletion,) = await store.deletions([ORG], since=0.0)
    assert deletion.covers(a_record(user="u", started=1.0))
    await away.close()


async def test_more_than_a_page_of_waiting_records_is_searched(redis: Redis, sqlite_url: str) -> None:
    database = Database(sqlite_url)
    await database.migrate()
    records = [await a_waiting(redis, user="u" if n % 2 else "v", started=1.0) for n in range(1100)]
    count = await ContentDeletion(ContentStore(database), StoredObjects(database), redis).delete(
        "user", "u", org=ORG, key="key_1"
    )
    assert count == 550
    assert sum([await waits(redis, record) for record in records]) == 550
    await database.close()
