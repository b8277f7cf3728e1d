"""Tables of earlier versions, with data, brought to this version's: nothing is lost and nothing changes.

The data are made with this version's code and copied into the earlier tables, as far as these have the columns.
"""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from sqlalchemy import Connection, MetaData, Table, func, insert, select
from sqlalchemy.engine import make_url
from tests.records import a_record

from quarterdeck import ids
from quarterdeck.store import migration
from quarterdeck.store.database import Database
from quarterdeck.store.keys import KeyStore
from quarterdeck.store.ledger import Ledger, LedgerFilter

SECRET = "sk-qd-" + "k" * 40
EARLIER = ["0004", "0010", "0014", "0016"]
OURS = {"alembic_version", "compatible_programs"}
"""Tables that say which version the others have."""
Rows = dict[str, list[dict[str, Any]]]


@pytest.fixture
def sqlite_url(empty_sqlite_url: str) -> str:
    return empty_sqlite_url


@pytest.fixture
def postgres_url(empty_postgres_url: str) -> str:
    return empty_postgres_url


@pytest.fixture
async def data(tmp_path: Path) -> AsyncIterator[Rows]:
    """Rows of a platform with an organisation, keys and requests, by table."""
    source = Database(f"sqlite+aiosqlite:///{tmp_path}/source/quarterdeck.db")
    await source.migrate()
    keys = KeyStore(source)
    made = await keys.create(secret=SECRET, name="ci", org="acme", team="red", is_admin=True, tags=["a"])
    await keys.create(secret=f"{SECRET}2", name="other")
    records = [a_record(org="acme", team="red", key=made.id) for _ in range(20)]
    assert await Ledger(source).insert(records) == 20
    async with source.connect() as connection:
        yield await connection.run_sync(_all_rows)
    await source.close()


@pytest.mark.parametrize("revision", EARLIER)
async def test_an_upgrade_keeps_every_row_of_an_earlier_version(database_url: str, revision: str, data: Rows) -> None:
    if "sqlite" in database_url:
        Path(str(make_url(database_url).database)).parent.mkdir(mode=0o700)
    database = Database(database_url)
    async with database.begin() as connection:
        await connection.run_sync(lambda raw: command.upgrade(migration.config(raw), revision))
        before = await connection.run_sync(_fill, data)
    assert {"api_keys", "teams", "orgs", "ledger"} <= {name for name, rows in before.items() if rows}

    await database.migrate()

    async with database.connect() as connection:
        after = await connection.run_sync(_all_rows)
    for name, rows in before.items():
        assert name in after, f"{name} is gone"
        kept = [{column: row[column] for column in rows[0] if column in row} for row in after[name]] if rows else []
        expected = [{column: value for column, value in row.items() if column in after[name][0]} for row in rows]
        assert [row for row in expected if row not in kept] == [], name
    key = await KeyStore(database).find(ids.digest(SECRET))
    assert key is not None
    assert (key.name, key.team, key.is_admin) == ("ci", "red", True)
    found = await Ledger(database).list(LedgerFilter(org="acme"))
    assert {record.id for record in found} == {row["id"] for row in before["ledger"]}
    await database.close()


def _all_rows(connection: Connection) -> Rows:
    return {
        name: [dict(row) for row in connection.execute(select(table)).mappings()]
        for name, table in _tables(connection).items()
        if name not in OURS
    }


def _fill(connection: Connection, data: Rows) -> Rows:
    """Insert what the tables can take. Returns all that they then have."""
    for name, table in _tables(connection).items():
        if name in OURS or not data.get(name):
            continue
        for row in data[name]:
            shared = {column: value for column, value in row.items() if column in table.columns}
            if not _has(connection, table, shared):
                connection.execute(insert(table).values(shared))
    return _all_rows(connection)


def _has(connection: Connection, table: Table, row: dict[str, Any]) -> bool:
    """Whether the migration has made a row with this primary key, such as the organisation `default`."""
    where = [column == row[column.name] for column in table.primary_key.columns]
    return bool(connection.scalar(select(func.count()).select_from(table).where(*where)))


def _tables(connection: Connection) -> dict[str, Table]:
    """In an order in which rows can be inserted."""
    found = MetaData()
    found.reflect(connection)
    return {table.name: table for table in found.sorted_tables}
