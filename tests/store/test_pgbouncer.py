"""The store behind PgBouncer in transaction mode: each transaction may run on another connection of the server."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest
from sqlalchemy import text
from tests.pgbouncer import PgBouncer, running
from tests.records import a_record
from tests.servers import PostgresServer

from quarterdeck import ids
from quarterdeck.store import migration
from quarterdeck.store.database import Database
from quarterdeck.store.keys import KeyStore
from quarterdeck.store.ledger import Ledger, LedgerFilter
from quarterdeck.store.orgs import OrgStore
from quarterdeck.store.spending import LedgerScope, spending

ALL = LedgerFilter(org="default")


@pytest.fixture(scope="module")
def bouncer(postgres_server: PostgresServer) -> Iterator[PgBouncer]:
    with running(postgres_server) as server:
        yield server


@pytest.fixture
async def pooled_url(bouncer: PgBouncer, empty_postgres_url: str) -> str:
    """A URL through PgBouncer of an empty database."""
    return bouncer.url(empty_postgres_url.partition("?")[0].rpartition("/")[2])


@pytest.fixture
async def pooled(pooled_url: str) -> AsyncIterator[Database]:
    database = Database(pooled_url)
    await database.migrate()
    yield database
    await database.close()


async def test_tables_are_migrated_once_by_many(pooled_url: str) -> None:
    databases = [Database(pooled_url) for _ in range(5)]
    await asyncio.gather(*(database.migrate() for database in databases))
    async with databases[0].connect() as connection:
        assert (await connection.scalars(text("SELECT version_num FROM alembic_version"))).all() == [migration.head()]
    await asyncio.gather(*(database.close() for database in databases))


async def test_more_clients_than_server_connections_read_and_write(pooled_url: str, pooled: Database) -> None:
    """Three server connections, four processes of five connections each: statements must not meet another's."""
    databases = [pooled, *[Database(pooled_url) for _ in range(3)]]

    async def work(number: int) -> str:
        database = databases[number % len(databases)]
        keys = KeyStore(database)
        await OrgStore(database).ensure()
        row = await keys.create(secret=ids.api_key(), name=f"key {number}")
        record = a_record(key=row.id)
        ledger = Ledger(database)
        assert await ledger.insert([record, a_record(key=row.id)]) == 2
        assert await ledger.insert([record]) == 0
        assert len(await ledger.list(LedgerFilter(org="default", key=row.id), limit=10)) == 2
        async with spending(database, timeout=5) as snapshot:
            spent = await snapshot.of("default", [LedgerScope("mine", "key", row.id)], 0.0)
            assert spent["mine"] > 0
        await keys.revoke(row.id)
        await database.ping()
        return row.id

    try:
        made = await asyncio.gather(*[work(number) for number in range(40)])
    finally:
        for database in databases[1:]:
            await database.close()
    assert len(set(made)) == 40
    assert len(await Ledger(pooled).list(ALL, limit=1000)) == 80


async def test_a_pooler_that_is_restarted_is_found_again(bouncer: PgBouncer, pooled: Database) -> None:
    await pooled.ping()
    bouncer.kill()
    bouncer.start()
    await pooled.ping()
