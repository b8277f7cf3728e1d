"""The database reports its availability, and migrates its tables once."""

import asyncio
import fcntl
import importlib
import pkgutil
import re
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, exc, text
from sqlalchemy.engine import make_url
from tests.servers import PostgresServer

from quarterdeck import store
from quarterdeck.errors import APIError, ServiceUnavailableError
from quarterdeck.store import database as database_module
from quarterdeck.store import migration
from quarterdeck.store.database import Database, DatabaseUnavailableError
from quarterdeck.store.ledger import Ledger, LedgerFilter
from quarterdeck.store.migration import MigrationError
from quarterdeck.store.tables import metadata

NEW_IN_2 = {"route", "cache_age", "saved", "resumed", "priority", "tags"}


@pytest.fixture
def sqlite_url(empty_sqlite_url: str) -> str:
    """Without tables, as these tests are about their migration."""
    return empty_sqlite_url


@pytest.fixture
def postgres_url(empty_postgres_url: str) -> str:
    return empty_postgres_url


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    subject = Database(database_url)
    await subject.migrate()
    yield subject
    await subject.close()


async def test_the_migrations_make_what_the_code_knows(database: Database) -> None:
    for module in pkgutil.iter_modules(store.__path__, f"{store.__name__}."):
        if module.name.endswith("_tables"):
            importlib.import_module(module.name)

    def differences(connection: Connection) -> list[object]:
        return list(compare_metadata(MigrationContext.configure(connection), metadata))

    async with database.connect() as connection:
        assert await connection.run_sync(differences) == []


async def test_migrating_again_changes_nothing(database: Database) -> None:
    await database.migrate()
    async with database.connect() as connection:
        assert (await connection.scalars(text("SELECT version_num FROM alembic_version"))).all() == [migration.head()]


async def test_many_may_migrate_at_once(database_url: str) -> None:
    databases = [Database(database_url) for _ in range(5)]
    await asyncio.gather(*(database.migrate() for database in databases))
    await databases[0].ping()
    await asyncio.gather(*(database.close() for database in databases))


@pytest.mark.parametrize(
    "url",
    ["nonsense", "", "sqlite", "mysql://u:s3cret@h/x", "://u:s3cret@h", "u:s3cret@h/x", "postgres://u:s3cret@h:pw/x"],
)
def test_a_malformed_url_is_a_value_error_without_its_password(url: str) -> None:
    with pytest.raises(ValueError, match="database URL") as raised:
        Database(url)
    assert "s3cret" not in str(raised.value)
    assert raised.value.__suppress_context__ or raised.value.__context__ is None


async def test_a_database_of_a_newer_program_is_left_alone(database: Database) -> None:
    async with database.begin() as connection:
        await connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(MigrationError, match="another version"):
        await database.migrate()


async def newer_tables(database: Database, *compatible: str) -> None:
    """What a newer program leaves: its revision, and the programs that work with its tables."""
    async with database.begin() as connection:
        await connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
        await connection.execute(text("DELETE FROM compatible_programs"))
        for program in ("9999", *compatible):
            values = {"program": program}
            await connection.execute(text("INSERT INTO compatible_programs VALUES ('9999', :program)"), values)


async def test_a_program_runs_on_tables_that_a_newer_one_calls_compatible(database: Database) -> None:
    await newer_tables(database, str(migration.head()), "0001")
    await database.migrate()
    async with database.connect() as connection:
        assert await connection.scalar(text("SELECT version_num FROM alembic_version")) == "9999"


async def test_a_program_does_not_run_on_tables_that_a_newer_one_has_broken_for_it(database: Database) -> None:
    await newer_tables(database, "9998")
    with pytest.raises(MigrationError, match="another version"):
        await database.migrate()


async def test_the_programs_that_work_with_the_tables_are_noted(database: Database) -> None:
    async with database.connect() as connection:
        rows = (await connection.execute(text("SELECT tables, program FROM compatible_programs"))).all()
    assert {tables for tables, _ in rows} == {migration.head()}
    assert {program for _, program in rows} >= {"0013", migration.head()}


def test_a_migration_that_breaks_older_programs_ends_the_list(tmp_path: Path) -> None:
    (tmp_path / "versions").mkdir()
    for number in range(1, 5):
        lines = [f"revision = '{number}'", f"down_revision = {repr(str(number - 1)) if number > 1 else None}"]
        lines += ["breaks_older = True"] if number == 3 else []
        (tmp_path / "versions" / f"v{number}.py").write_text("\n".join(lines))
    settings = migration.config()
    settings.set_main_option("script_location", str(tmp_path))
    assert migration.compatible(ScriptDirectory.from_config(settings)) == ["4", "3"]


async def test_a_step_that_fails_leaves_nothing_behind(database_url: str) -> None:
    # The last table exists already, so the migration fails after it has created the others.
    database = Database(database_url)
    if database.is_sqlite:
        path = Path(str(make_url(database_url).database))
        path.parent.mkdir()
        with sqlite3.connect(path) as raw:
            raw.execute("CREATE TABLE ledger (id TEXT)")
        raw.close()
    else:
        async with database.begin() as connection:
            await connection.execute(text("CREATE TABLE ledger (id TEXT)"))
    with pytest.raises((exc.ProgrammingError, DatabaseUnavailableError)):
        await database.migrate()
    tables = "SELECT name FROM sqlite_master" if database.is_sqlite else "SELECT tablename FROM pg_tables"
    async with database.connect() as connection:
        assert "orgs" not in (await connection.scalars(text(tables))).all()
    await database.close()


async def test_a_database_without_tables_is_unavailable_and_not_broken(database_url: str) -> None:
    database = Database(database_url)
    if database.is_sqlite:  # an existing, empty folder
        Path(str(make_url(database_url).database)).parent.mkdir()
    with pytest.raises(DatabaseUnavailableError):
        async with database.connect() as connection:
            await connection.execute(text("SELECT * FROM api_keys"))
    await database.close()


async def test_a_mistake_of_ours_is_not_an_outage(database_url: str) -> None:
    states: list[bool] = []
    database = Database(database_url, on_state=states.append)
    await database.migrate()
    with pytest.raises(exc.IntegrityError):
        async with database.begin() as connection:
            for _ in range(2):
                await connection.execute(text("INSERT INTO orgs (id, created) VALUES ('a', 1)"))
    assert states == []
    await database.close()


async def test_a_migration_waits_for_another_process_and_can_be_called_off(sqlite_url: str) -> None:
    first = Database(sqlite_url)
    await first.migrate()
    with (Path(str(make_url(sqlite_url).database) + ".lock")).open() as held:  # noqa: ASYNC230  # a few bytes
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await first.migrate()
    await first.migrate()
    await first.close()


async def test_sqlites_file_is_for_its_owner_alone(sqlite_url: str) -> None:
    database = Database(sqlite_url)
    await database.migrate()
    await database.close()
    path = Path(str(make_url(sqlite_url).database))
    assert (mode(path), mode(path.parent)) == (0o600, 0o700)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


async def test_sqlite_commits_to_the_disk_and_readers_do_not_wait(sqlite_url: str) -> None:
    database = Database(sqlite_url)
    await database.migrate()
    async with database.connect() as connection:
        pragmas = [
            await connection.scalar(text(f"PRAGMA {p}")) for p in ("journal_mode", "synchronous", "foreign_keys")
        ]
    assert pragmas == ["wal", 2, 1]
    await database.close()


async def test_another_process_sees_what_was_committed_after_a_second_migration(sqlite_url: str) -> None:
    """Requests may have opened connections before the migration."""
    database = Database(sqlite_url)
    await database.migrate()
    await database.ping()
    await database.migrate()
    assert orgs_by_another_process(sqlite_url) == []  # its connection closes as well, and is not the last one
    async with database.begin() as connection:
        await connection.execute(text("INSERT INTO orgs (id, created) VALUES ('a', 1)"))
    assert orgs_by_another_process(sqlite_url) == ["a"]
    await database.close()


def orgs_by_another_process(url: str) -> list[str]:
    script = f"import sqlite3; print(*sqlite3.connect({make_url(url).database!r}).execute('SELECT id FROM orgs'))"
    answer = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    return re.findall(r"\w+", answer.stdout)


async def test_a_sqlite_that_is_locked_for_too_long_is_unavailable_and_then_back(sqlite_url: str) -> None:
    states: list[bool] = []
    database = Database(sqlite_url, timeout=0.2, on_state=states.append)
    await database.migrate()
    other = sqlite3.connect(str(make_url(sqlite_url).database), isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    for _ in range(2):
        with pytest.raises(DatabaseUnavailableError, match="locked"):
            async with database.begin() as connection:
                await connection.execute(text("INSERT INTO orgs (id, created) VALUES ('a', 1)"))
    other.execute("ROLLBACK")
    other.close()
    async with database.begin() as connection:
        await connection.execute(text("INSERT INTO orgs (id, created) VALUES ('a', 1)"))
    assert states == [False, True]
    await database.close()


async def test_a_cancelled_write_of_sqlite_gives_its_lock_back(sqlite_url: str) -> None:
    database = Database(sqlite_url)
    await database.migrate()
    async with database.begin() as connection:
        await connection.execute(text("CREATE TABLE things (name TEXT)"))
    is_running, may_end = threading.Event(), threading.Event()

    def row() -> str:
        is_running.set()
        may_end.wait(60)
        return "row"

    async def write() -> None:
        async with database.begin() as connection:
            driver = (await connection.get_raw_connection()).driver_connection
            assert driver is not None
            await driver.create_function("row", 0, row)
            await connection.execute(text("INSERT INTO things VALUES ('a'), ('b') RETURNING row()"))

    writing = asyncio.create_task(write())
    assert await asyncio.to_thread(is_running.wait, 60)
    writing.cancel()
    may_end.set()  # the statement has gone on in its thread
    with pytest.raises(asyncio.CancelledError) as kept:  # with its traceback, as a task or a log keeps it
        await writing
    async with database.begin() as connection:
        await connection.execute(text("INSERT INTO things VALUES ('c')"))
        assert (await connection.scalars(text("SELECT name FROM things"))).all() == ["c"]
    del kept
    await database.close()


async def test_a_file_that_is_no_database_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "x.db").write_bytes(b"no database at all" * 100)
    database = Database(f"sqlite+aiosqlite:///{tmp_path}/x.db")
    with pytest.raises(DatabaseUnavailableError):
        await database.ping()
    await database.close()


async def test_a_postgres_that_stops_is_unavailable_and_then_back(
    postgres_server: PostgresServer, postgres_url: str
) -> None:
    states: list[bool] = []
    database = Database(postgres_url, on_state=states.append)
    await database.ping()
    postgres_server.stop()
    try:
        for _ in range(2):
            with pytest.raises(DatabaseUnavailableError):
                await database.ping()
    finally:
        postgres_server.start()
    await database.ping()
    assert states == [False, True]
    await database.close()


async def test_a_recent_answer_counts_until_a_statement_fails(
    postgres_url: str, postgres_server: PostgresServer
) -> None:
    now = 100.0
    database = Database(postgres_url, monotonic=lambda: now)
    await database.ping()
    postgres_server.stop()
    try:
        await database.ping(max_age=1)  # asks no one
        now += 2
        with pytest.raises(DatabaseUnavailableError):
            await database.ping(max_age=1)
        with pytest.raises(DatabaseUnavailableError):
            await database.ping(max_age=60)
    finally:
        postgres_server.start()
    await database.close()


async def test_a_postgres_that_hangs_is_unavailable_within_the_time_out(postgres_url: str) -> None:
    database = Database(postgres_url, timeout=0.3)
    with pytest.raises(DatabaseUnavailableError):
        async with database.connect() as connection:
            await connection.execute(text("SELECT pg_sleep(60)"))
    await database.ping()
    await database.close()


async def test_no_connection_left_is_unavailable_within_the_time_out(postgres_url: str) -> None:
    database = Database(postgres_url, timeout=2, pool_size=1)
    async with database.connect(timeout=5) as connection:
        await connection.execute(text("SELECT 1"))
        with pytest.raises(DatabaseUnavailableError):
            await database.ping()
    await database.close()


@pytest.mark.parametrize("wrong", ["no_such_database", "no_such_host"])
async def test_a_postgres_that_is_not_where_the_url_says_is_unavailable(
    postgres_server: PostgresServer, tmp_path: Path, wrong: str
) -> None:
    url = postgres_server.url("nowhere")
    if wrong == "no_such_host":
        url = f"postgresql+asyncpg://postgres@/postgres?host={tmp_path}"
    database = Database(url)
    with pytest.raises(DatabaseUnavailableError):
        await database.ping()
    await database.close()


async def test_a_wrong_password_is_unavailable_and_the_password_is_not_told(
    postgres_server: PostgresServer, postgres_url: str
) -> None:
    connection = await asyncpg.connect(postgres_server.dsn())
    await connection.execute("CREATE ROLE stranger")
    await connection.close()
    database = Database(postgres_url.replace("postgres@", "stranger:hunter2@"))
    with pytest.raises(DatabaseUnavailableError) as caught:
        await database.ping()
    assert "hunter2" not in str(caught.value)
    await database.close()


def test_unavailable_is_503_to_a_caller() -> None:
    error: APIError = DatabaseUnavailableError("x")
    assert (error.status, error.type, error.code) == (503, "server_error", "database_unavailable")


@pytest.mark.parametrize(
    ("url", "is_sqlite"),
    [("postgres://u:p@h/db", False), ("postgresql://u:p@h/db", False), ("sqlite:///x.db", True)],
)
async def test_the_driver_is_ours_to_name(url: str, is_sqlite: bool) -> None:
    assert Database(url).is_sqlite is is_sqlite


def test_another_kind_of_database_is_refused() -> None:
    with pytest.raises(ValueError, match="begins with"):
        Database("mysql://u@h/db")


async def test_a_worker_of_the_version_before_may_go_on_writing(sqlite_url: str) -> None:
    database = Database(sqlite_url)
    await database.migrate()
    old = [column.name for column in metadata.tables["ledger"].c if column.name not in NEW_IN_2 and not column.nullable]
    values = {name: "[]" if name == "attempts" else "0" for name in old}
    statement = f"INSERT INTO ledger ({', '.join(old)}) VALUES ({', '.join(f':{name}' for name in old)})"
    async with database.begin() as connection:
        await connection.execute(text(statement), values)
    (record,) = await Ledger(database).list(LedgerFilter(org="0"))
    assert (record.route, record.saved, record.resumed, record.priority, record.tags) == ("", 0, 0, 0, ())
    await database.close()


async def test_reports_hold_up_no_other_read(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fourteen at once: two run, the others wait, and keys are looked up meanwhile."""
    monkeypatch.setattr(database_module, "REPORT_WAIT_SECONDS", 0.2)
    may_end = asyncio.Event()
    began = 0

    async def report() -> None:
        nonlocal began
        async with database.report() as connection:
            await connection.execute(text("SELECT count(*) FROM ledger"))
            began += 1
            await may_end.wait()

    reports = [asyncio.create_task(report()) for _ in range(14)]
    async with asyncio.timeout(10):
        while sum(task.done() for task in reports) < 12 or began < 2:  # other threads answer
            await database.ping()
            await asyncio.sleep(0.01)
    may_end.set()
    ended = await asyncio.gather(*reports, return_exceptions=True)
    refused = [error for error in ended if error is not None]
    assert len(refused) == 12
    assert all(isinstance(error, ServiceUnavailableError) for error in refused)
    assert {getattr(error, "code", None) for error in refused} == {"too_many_reports"}
    async with database.report() as connection:
        await connection.execute(text("SELECT 1"))


async def test_a_report_that_takes_too_long_is_no_outage(database_url: str) -> None:
    states: list[bool] = []
    database = Database(database_url, report_seconds=0.2, on_state=states.append)
    await database.migrate()
    with pytest.raises(ServiceUnavailableError, match="shorter range") as caught:
        async with database.report() as connection:
            await connection.execute(text("SELECT 1"))
            await asyncio.Event().wait()
    assert caught.value.code == "report_timeout"
    assert states == []
    async with database.report() as connection:
        await connection.execute(text("SELECT 1"))
    await database.close()


async def test_connections_to_a_former_primary_are_left(postgres_url: str) -> None:
    """A standby answers SELECT 1, so a pool would keep its connections to a primary that was demoted."""
    database = Database(postgres_url, pool_size=1)
    await database.migrate()
    async with database.connect() as connection:
        await connection.execute(text("SET SESSION default_transaction_read_only = on"))
        await connection.commit()
    with pytest.raises(DatabaseUnavailableError, match="read-only"):
        await database.ping()
    await database.ping()
    async with database.connect() as connection:
        await connection.execute(text("SET SESSION default_transaction_read_only = on"))
        await connection.commit()
    insert = text("INSERT INTO orgs (id, created) VALUES ('a', 1)")
    with pytest.raises(DatabaseUnavailableError, match="read-only"):
        async with database.begin() as connection:
            await connection.execute(insert)
    async with database.begin() as connection:
        await connection.execute(insert)
    await database.close()


async def test_a_role_that_lost_its_rights_is_an_outage_and_no_mistake_of_ours(postgres_url: str) -> None:
    """A key that cannot be looked up is 503, as while the database is away."""
    database = Database(postgres_url, pool_size=1)
    await database.migrate()
    async with database.begin() as connection:
        await connection.execute(text("CREATE ROLE poor"))
    try:
        with pytest.raises(DatabaseUnavailableError, match="permission denied"):
            async with database.begin() as connection:
                await connection.execute(text("SET LOCAL ROLE poor"))
                await connection.execute(text("SELECT * FROM api_keys"))
    finally:
        async with database.begin() as connection:
            await connection.execute(text("DROP ROLE poor"))
        await database.close()


@pytest.mark.parametrize("setting", ["idle_in_transaction_session_timeout", "search_path"])
async def test_what_the_server_ends_or_hides_is_an_outage(postgres_url: str, setting: str) -> None:
    database = Database(postgres_url, pool_size=1)
    value = {"search_path": "nowhere", "idle_in_transaction_session_timeout": "1ms"}[setting]
    with pytest.raises(DatabaseUnavailableError):
        async with database.begin() as connection:
            await connection.execute(text(f"SET LOCAL {setting} = '{value}'"))
            if setting == "search_path":
                await connection.execute(text("CREATE TABLE t (id int)"))
            while True:
                await connection.execute(text("SELECT 1"))
                await asyncio.sleep(0.05)
    await database.close()


async def test_a_read_only_database_is_reported(postgres_url: str, caplog: pytest.LogCaptureFixture) -> None:
    states: list[bool] = []
    database = Database(postgres_url, pool_size=1, on_state=states.append)
    async with database.connect() as connection:
        await connection.execute(text("SET SESSION default_transaction_read_only = on"))
        await connection.commit()
    with pytest.raises(DatabaseUnavailableError, match="read-only"):
        await database.ping()
    assert states == [False]
    assert [record.message for record in caplog.records] == ["the database is not available: it is read-only"]
    await database.ping()
    assert states == [False, True]
    await database.close()


async def test_a_migration_is_not_bound_by_the_roles_time_outs(postgres_url: str) -> None:
    """It waits for another process' migration, and may change a large table."""
    name = make_url(postgres_url).database
    holder, database = Database(postgres_url, pool_size=1), Database(postgres_url)
    async with holder.begin() as connection:
        for setting in ("statement_timeout", "lock_timeout"):
            await connection.execute(text(f'ALTER DATABASE "{name}" SET {setting} = 200'))
    async with holder.begin() as connection:
        lock = text("SELECT pg_advisory_xact_lock(:key)")
        await connection.execute(lock, {"key": database_module._MIGRATION_LOCK})
        migrating = asyncio.create_task(database.migrate())
        done, _ = await asyncio.wait([migrating], timeout=1)
        assert not done
    await migrating
    for each in (holder, database):
        await each.close()


async def test_a_full_disk_is_one_change_although_reads_succeed_until_a_write_does(tmp_path: Path) -> None:
    states: list[bool] = []
    database = Database(f"sqlite+aiosqlite:///{tmp_path}/full.db", on_state=states.append)
    async with database.begin() as connection:
        await connection.execute(text("CREATE TABLE t (x)"))
    for _ in range(3):
        with pytest.raises(DatabaseUnavailableError, match="database or disk is full"):
            async with database.begin() as connection:
                pages = (await connection.execute(text("PRAGMA page_count"))).scalar()
                await connection.execute(text(f"PRAGMA max_page_count={pages}"))
                await connection.execute(text("INSERT INTO t VALUES (zeroblob(1000000))"))
        await database.ping()
    assert states == [False]
    async with database.begin() as connection:
        await connection.execute(text("PRAGMA max_page_count=1000000"))
        await connection.execute(text("INSERT INTO t VALUES (zeroblob(1000000))"))
    assert states == [False, True]
    await database.close()


def test_the_migrations_are_one_line_and_named_by_their_numbers() -> None:
    """Two branches that add one at the same time are both green."""
    found = sorted((Path(migration.__file__).parent / "migrations" / "versions").glob("v*.py"))
    numbers = [path.name[1:5] for path in found]
    assert numbers == [f"{number:04}" for number in range(1, len(found) + 1)]
    for path, before in zip(found, [None, *numbers], strict=False):
        text = path.read_text()
        assert f'revision = "{path.name[1:5]}"' in text
        assert f"down_revision = {before!r}".replace("'", '"') in text
