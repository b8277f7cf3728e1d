"""The database connection, SQLite or PostgreSQL, and its availability.

Every failure of the database becomes DatabaseUnavailableError, so that a caller gets 503 and never "unknown key", and
the worker keeps its records and retries. Errors in our own statements are raised as they are."""

import asyncio
import fcntl
import logging
import os
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import asyncpg
from sqlalchemy import URL, event, exc, make_url, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from quarterdeck.errors import ServiceUnavailableError
from quarterdeck.store.migration import upgrade
from quarterdeck.store.postgres_url import SCHEMES as POSTGRES_SCHEMES
from quarterdeck.store.postgres_url import PostgresTarget, read_postgres_url

log = logging.getLogger(__name__)

Transaction = AsyncConnection
"""What `Database.begin` yields, by a name for those who only hand it on."""
_POSTGRES = URL.create("postgresql+asyncpg")
"""For SQLAlchemy; asyncpg gets the address itself (`postgres_url`)."""
_BAD_URL = "a database URL begins with sqlite+aiosqlite:/// or postgresql+asyncpg://"
_MIGRATION_LOCK = 0x71_64_65_63_6B  # "qdeck": any key that no other program uses for advisory locks here
_MIGRATION_SECONDS = 600.0

MAX_REPORTS = 2
"""Reports at once: a third would make none of them faster, and SQLite's are summed on this process' core."""
REPORT_SECONDS = 60.0
REPORT_WAIT_SECONDS = 10.0
"""How long a report waits for another to end."""

RECENT_SECONDS = 0.25
"""How long an answer of the database counts, where a request needs to know that it could be stored now."""

_READ_ONLY = "25006"
"""The SQLSTATE of a write on a standby: the primary has failed over, and pooled connections are still to the former."""
_AWAY = (
    *("08", "25", "26", "28", "3D", "3F", "40", "42501", "42P01", "42P05", "42703", "53", "55", "57", "58"),
    *("F0", "XX"),
)
"""Prefixes of SQLSTATEs after which a retry may succeed: connection, read only or an idle transaction ended by the
server, statements lost behind a pooler, password, no such database, no schema, serialization, no privilege, tables
missing (migrations have not run), resources, locks, shutdown, I/O, configuration, internal."""
_DISK_FULL = "53100"
_UNBOUNDED = text("SELECT set_config('statement_timeout', '0', true), set_config('lock_timeout', '0', true)")
"""For this transaction: a migration of a large ledger takes longer than what a role is allowed per statement, and the
lock is waited for."""


class DatabaseUnavailableError(ServiceUnavailableError):
    """No connection, no answer in time, or a database that cannot serve at the moment."""

    default_code = "database_unavailable"


class Database:
    """A pool of `pool_size` connections; `timeout` bounds every wait, in seconds.

    `on_state` is called once with False when the database goes away and once with True when it is back.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout: float = 5.0,
        pool_size: int = 5,
        report_seconds: float = REPORT_SECONDS,
        on_state: Callable[[bool], None] = lambda up: None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._url, self._postgres = _normalized(url)
        for note in self._postgres.notes if self._postgres is not None else ():
            log.warning("%s", note)
        self._timeout = timeout
        self._on_state = on_state
        self._is_up: bool | None = None
        self._monotonic = monotonic
        self._answered = 0.0  # by that clock, as of the last statement that succeeded
        self._is_full = False
        """It takes no writes, as its disk is full: reads that succeed do not mean that it is back."""
        self._engine = self._make_engine(timeout, pool_size=pool_size)
        self._report_seconds = report_seconds
        self._report_engine = self._make_engine(report_seconds, pool_size=MAX_REPORTS)
        self._reports = asyncio.Semaphore(MAX_REPORTS)

    @property
    def is_sqlite(self) -> bool:
        return self._url.get_backend_name() == "sqlite"

    @asynccontextmanager
    async def connect(self, timeout: float | None = None) -> AsyncIterator[AsyncConnection]:
        """A connection for reading. `timeout` (seconds) bounds the whole block, including the wait for the
        connection."""
        with self._translated():
            async with asyncio.timeout(timeout or self._limit), self._engine.connect() as connection:
                yield connection

    @asynccontextmanager
    async def report(self) -> AsyncIterator[AsyncConnection]:
        """A connection for a read over many rows, for up to `report_seconds`. Reports have their own connections, so
        that look-ups of keys do not wait for them.

        Raises ServiceUnavailableError where too many run, or where it takes too long; the database is not away then.
        """
        try:
            async with asyncio.timeout(REPORT_WAIT_SECONDS):
                await self._reports.acquire()
        except TimeoutError:
            raise ServiceUnavailableError(
                "Too many reports are being made. Please try again later.", code="too_many_reports", retry_after=10
            ) from None
        try:
            async with asyncio.timeout(self._report_seconds) as limit:
                with self._translated():
                    async with self._report_engine.connect() as connection:
                        yield connection
        except (TimeoutError, DatabaseUnavailableError):
            if not limit.expired():
                raise
            raise ServiceUnavailableError(
                f"The report took longer than {self._report_seconds:g} seconds. Please ask for a shorter range.",
                code="report_timeout",
            ) from None
        finally:
            self._reports.release()

    @asynccontextmanager
    async def begin(self, timeout: float | None = None) -> AsyncIterator[AsyncConnection]:
        """A transaction: committed at the end, rolled back by an exception. Write in it before you read: a SQLite
        transaction that has read cannot always become a writer."""
        with self._translated(writes=True):
            async with asyncio.timeout(timeout or self._limit), self._engine.begin() as connection:
                try:
                    yield connection
                except exc.DBAPIError as error:
                    if getattr(error.orig, "sqlstate", None) == _READ_ONLY:
                        await connection.invalidate()  # the next one is opened to the server that is primary by then
                    raise

    async def read_snapshot(self, connection: AsyncConnection) -> None:
        """Let all reads of a new connection see one state, that of the first."""
        if self.is_sqlite:
            await connection.exec_driver_sql("BEGIN")  # the driver begins no transaction before a SELECT
        else:
            await connection.execution_options(isolation_level="REPEATABLE READ")

    async def ping(self, *, max_age: float = 0.0) -> None:
        """Raises DatabaseUnavailableError where the database does not answer, or is a standby that takes no writes. A
        statement that succeeded in the last `max_age` seconds counts as an answer."""
        if self._is_up and self._monotonic() - self._answered < max_age:
            return
        async with self.connect() as connection:
            if self.is_sqlite:
                await connection.execute(text("SELECT 1"))
            elif await connection.scalar(text("SELECT current_setting('transaction_read_only')")) == "on":
                await connection.invalidate()
                self._mark(up=False, reason="it is read-only")
                raise DatabaseUnavailableError("The database is not available: it is read-only")

    async def migrate(self) -> None:
        """Migrate the tables to this program's version. Any number of processes may call it at once.

        All or nothing: both databases change tables inside a transaction. Raises MigrationError where a newer program
        migrated the tables.
        """
        engine = self._make_engine(_MIGRATION_SECONDS)
        try:
            with self._translated():
                if self.is_sqlite:
                    await self._migrate_sqlite(engine)
                else:
                    async with engine.begin() as connection:
                        await connection.execute(_UNBOUNDED)
                        # Waits for a process that migrates now; released by commit, rollback or the end of the process.
                        await connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATION_LOCK})
                        await connection.run_sync(upgrade)
        finally:
            await engine.dispose()

    async def close(self) -> None:
        await self._engine.dispose()
        await self._report_engine.dispose()

    @property
    def _limit(self) -> float:
        # SQLite waits `timeout` for a lock itself, and its error says more than ours.
        return self._timeout + 1.0 if self.is_sqlite else self._timeout

    async def _migrate_sqlite(self, engine: AsyncEngine) -> None:
        path = self._url.database
        lock = await _locked_file(Path(path)) if path and path != ":memory:" else None
        try:
            async with engine.connect() as connection:
                # The driver begins transactions only before INSERT and the like, not before CREATE TABLE.
                raw = await connection.execution_options(isolation_level="AUTOCOMMIT")
                await raw.exec_driver_sql("BEGIN IMMEDIATE")
                try:
                    await raw.run_sync(upgrade)
                    await raw.exec_driver_sql("COMMIT")
                except BaseException:  # a cancelled migration must release the file as well
                    with suppress(exc.DBAPIError):  # SQLite has rolled back by itself where its disk is full
                        await raw.exec_driver_sql("ROLLBACK")
                    raise
        finally:
            if lock is not None:
                os.close(lock)

    def _make_engine(self, timeout: float, *, pool_size: int | None = None) -> AsyncEngine:
        pool: dict[str, Any] = {"poolclass": NullPool}
        if pool_size is not None:
            pool = {
                "pool_size": pool_size,
                "max_overflow": 0,
                "pool_timeout": timeout,
                "pool_recycle": 1800,
                # One short round trip, so that a restart of the server does not fail the next request.
                "pool_pre_ping": not self.is_sqlite,
            }
        if self.is_sqlite:
            engine = create_async_engine(
                self._url, connect_args={"timeout": timeout, "factory": _SqliteConnection}, **pool
            )
            event.listen(engine.sync_engine, "connect", _prepare_sqlite)
            return engine
        assert self._postgres is not None  # noqa: S101  # set for every URL that is not SQLite's
        target = self._postgres

        async def connect() -> asyncpg.Connection:
            arguments = target.arguments(connect_timeout=min(timeout, 10.0), command_timeout=timeout)
            return await asyncpg.connect(**arguments)

        arguments = {
            "async_creator_fn": connect,
            # Unnamed statements, because a pooler's transactions do not share named ones. asyncpg prepares them anew
            # each time, which the store's few statements can afford.
            "prepared_statement_cache_size": 0,
            "prepared_statement_name_func": lambda: "",
        }
        return create_async_engine(self._url, connect_args=arguments, **pool)

    @contextmanager
    def _translated(self, *, writes: bool = False) -> Iterator[None]:
        try:
            yield
        except (OSError, TimeoutError, exc.TimeoutError, exc.DBAPIError, asyncpg.PostgresError) as error:
            if not _is_away(error):
                raise
            self._is_full = self._is_full or _is_full(error)
            self._mark(up=False, reason=_reason(error))
            raise DatabaseUnavailableError(f"The database is not available: {_reason(error)}") from error
        except (asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
            self._mark(up=False, reason=_reason(error))
            raise DatabaseUnavailableError(f"The database is not available: {_reason(error)}") from error
        self._answered = self._monotonic()
        if writes:
            self._is_full = False
        if not self._is_full:
            self._mark(up=True)

    def _mark(self, *, up: bool, reason: str = "") -> None:
        was, self._is_up = self._is_up, up
        if not up and was is not False:  # logged once, not with each call
            log.warning("the database is not available: %s", reason)
        if was is not up and (was is not None or not up):
            self._on_state(up)


def _normalized(url: str) -> tuple[URL, PostgresTarget | None]:
    """SQLAlchemy's URL, and where it is PostgreSQL's, what asyncpg takes. Raises ValueError without any secret."""
    if url.partition("://")[0] in POSTGRES_SCHEMES:
        return _POSTGRES, read_postgres_url(url)
    try:
        parsed = make_url(url)
    except exc.ArgumentError:
        raise ValueError(_BAD_URL) from None
    except ValueError:  # its message repeats the port, which may be a part of a password
        raise ValueError("the port of a database URL is a number; a password's / : and @ are percent-encoded") from None
    if parsed.drivername not in ("sqlite", "sqlite+aiosqlite"):
        raise ValueError(_BAD_URL)
    return parsed.set(drivername="sqlite+aiosqlite"), None


class _SqliteConnection(sqlite3.Connection):
    """Ends its transaction when it is closed.

    SQLite itself keeps the transaction, and its lock, while there is a cursor whose rows are not all read. One is left
    where a task is cancelled at an `INSERT … RETURNING`, and lives as long as the exception's traceback."""

    def close(self) -> None:
        with suppress(sqlite3.Error):  # it is closed, or SQLite has rolled back by itself
            if self.in_transaction:
                self.rollback()
        super().close()


def _prepare_sqlite(connection: Any, record: object) -> None:
    """WAL: readers and one writer don't block one another, across processes too.

    synchronous FULL and not NORMAL: the worker deletes a record from Redis once its row is committed, so a commit must
    be on disk. It costs one fsync a batch. NORMAL would lose the last commits in a power failure."""
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


async def _locked_file(database: Path) -> int:
    """Wait for the lock file of a database. Closing the descriptor releases it, as does the end of the process."""
    lock = _lock_file_of(database)
    try:
        while not _is_locked_by_us(lock):  # noqa: ASYNC110  # the holder is another process
            await asyncio.sleep(0.05)
    except BaseException:  # cancelled while it waited: no caller closes the descriptor
        os.close(lock)
        raise
    return lock


def _lock_file_of(database: Path) -> int:
    """Create folder and files, readable by this user only. Returns the lock file's descriptor."""
    database.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # -wal and -shm inherit its mode. An existing file is not opened: closing any descriptor of it would drop SQLite's
    # locks in this process, and another process would remove the log under its connections.
    with suppress(FileExistsError):
        os.close(os.open(database, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    return os.open(database.with_name(database.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _is_locked_by_us(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_away(error: BaseException) -> bool:
    """Whether the database is at fault and a retry may succeed."""
    cause = error.orig if isinstance(error, exc.DBAPIError) and error.orig is not None else error
    state = getattr(cause, "sqlstate", None)
    if state is not None:
        return str(state).startswith(_AWAY)
    if isinstance(error, exc.DBAPIError) and error.connection_invalidated:
        return True
    if isinstance(cause, sqlite3.Error):
        # Locked, full, read only, unreadable, no such table. Errors of our statements are these subclasses.
        wrong = (sqlite3.IntegrityError, sqlite3.DataError, sqlite3.ProgrammingError, sqlite3.NotSupportedError)
        return not isinstance(cause, wrong)
    return not isinstance(error, exc.IntegrityError | exc.DataError | exc.ProgrammingError | exc.NotSupportedError)


def _is_full(error: BaseException) -> bool:
    """Whether the database's disk is full, or fails."""
    cause = error.orig if isinstance(error, exc.DBAPIError) and error.orig is not None else error
    code = getattr(cause, "sqlite_errorcode", None)
    if code is not None:
        return code & 0xFF in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR)
    return getattr(cause, "sqlstate", None) == _DISK_FULL


def is_unacceptable(error: BaseException) -> bool:
    """Whether the database or its driver rejects the values, so that a retry would fail as well."""
    if isinstance(error, exc.DBAPIError):
        state = str(getattr(error.orig, "sqlstate", None) or "")  # 22: data, 23: constraints
        return isinstance(error, exc.IntegrityError | exc.DataError) or state.startswith(("22", "23"))
    # Not a number, too large for any column, text that is not valid UTF-8.
    return isinstance(error, exc.StatementError | ValueError | OverflowError | TypeError)


def _reason(error: BaseException) -> str:
    """The driver's error in one line, without the statement and its values."""
    cause = error.orig if isinstance(error, exc.DBAPIError) and error.orig is not None else error
    words = str(cause).strip().splitlines()
    return words[0][:200] if words else "no answer in time"
