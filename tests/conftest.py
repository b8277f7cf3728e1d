"""Shared fixtures: real servers, one each per run, with a separate database per test."""

import asyncio
import contextlib
import itertools
import shutil
from collections.abc import AsyncIterator, Generator, Iterator
from pathlib import Path, PurePath
from typing import Any

import asyncpg
import pytest
from hypothesis import HealthCheck, settings
from tests.distribution import GroupScheduling, is_of_stack
from tests.servers import CONSERVATION, PostgresServer, RedisServer, short_folder
from xdist.remote import Producer

from quarterdeck.net.redis import Redis
from quarterdeck.store.database import Database

# Hypothesis' limits of time judge the machine: on a busy one, a correct example takes a second.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

CLUSTER_TESTS = Path(__file__).parent / "cluster"
_indexes = itertools.count()
_redis_databases = itertools.cycle(range(1, CONSERVATION))  # 0 is for tests that need a second one


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """tests/cluster takes part only where the command line names it: it may start a cluster."""
    if collection_path != CLUSTER_TESTS:
        return None
    named = (config.invocation_params.dir / argument.partition("::")[0] for argument in config.args)
    return None if any(path.resolve().is_relative_to(CLUSTER_TESTS) for path in named) else True


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> GroupScheduling:
    """With several processes, tests that share a platform or a file's fixtures stay in one."""
    return GroupScheduling(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Of several processes, one begins with the platforms' tests."""
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: not is_of_stack(PurePath(item.nodeid)))


@pytest.hookimpl(wrapper=True)
def pytest_report_to_serializable() -> Generator[None, Any, Any]:
    """Between processes, reports travel as UTF-8: a lone surrogate in captured output would end the run."""
    return _encodable((yield))


def _encodable(value: Any) -> Any:
    match value:
        case str():
            return value.encode("utf-8", "replace").decode()
        case dict():
            return {_encodable(name): _encodable(each) for name, each in value.items()}
        case list() | tuple():
            return type(value)(map(_encodable, value))
    return value


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """The run's redis-server. Do not stop it: use `own_redis_server` for that."""
    folder = short_folder()
    server = RedisServer(folder)
    server.start()
    yield server
    server.stop()
    shutil.rmtree(folder)


@pytest.fixture
def own_redis_server() -> Iterator[RedisServer]:
    """A redis-server for this test only, with an append-only file; it may be stopped, killed and restarted."""
    folder = short_folder()
    server = RedisServer(folder, durable=True)
    server.start()
    yield server
    server.stop()
    shutil.rmtree(folder)


@pytest.fixture
async def redis_url(redis_server: RedisServer) -> str:
    """An empty database of the run's redis-server."""
    url = redis_server.url(next(_redis_databases))
    client = Redis(url)
    await client.call("FLUSHDB")
    await client.close()
    return url


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    client = Redis(redis_url)
    yield client
    await client.close()


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """The run's PostgreSQL. A test that stops it must restart it."""
    folder, data = short_folder(), short_folder(in_memory=True)
    server = PostgresServer(folder, data)
    server.start()
    yield server
    server.stop()
    shutil.rmtree(folder)
    shutil.rmtree(data)


@pytest.fixture(scope="session")
def postgres_template(postgres_server: PostgresServer) -> str:
    """The name of a migrated database, which is copied for each test: twelve migrations take ten times as long."""
    name = "migrated"
    asyncio.run(_execute(postgres_server, f"CREATE DATABASE {name} TEMPLATE template0"))
    asyncio.run(_migrate(postgres_server.url(name)))
    return name


@pytest.fixture
async def postgres_url(postgres_server: PostgresServer, postgres_template: str) -> AsyncIterator[str]:
    """A migrated PostgreSQL database without rows."""
    async with postgres_database(postgres_server, postgres_template) as url:
        yield url


@pytest.fixture
async def empty_postgres_url(postgres_server: PostgresServer) -> AsyncIterator[str]:
    """A PostgreSQL database without tables."""
    async with postgres_database(postgres_server, "template0") as url:
        yield url


@contextlib.asynccontextmanager
async def postgres_database(server: PostgresServer, template: str) -> AsyncIterator[str]:
    """The URL of a new database. It is dropped: a migrated one takes 8 MB of memory, and a run has some hundreds."""
    name = f"test_{next(_indexes)}"
    await _execute(server, f"CREATE DATABASE {name} TEMPLATE {template}")
    yield server.url(name)
    await _execute(server, f"DROP DATABASE {name} WITH (FORCE)")


async def _execute(server: PostgresServer, statement: str) -> None:
    connection = await asyncpg.connect(server.dsn())
    await connection.execute(statement)
    await connection.close()


async def _migrate(url: str) -> None:
    database = Database(url)
    await database.migrate()
    await database.close()


@pytest.fixture(scope="session")
def sqlite_template() -> Iterator[Path]:
    """A migrated SQLite file, which is copied for each test."""
    folder = short_folder(in_memory=True)
    path = folder / "migrated.db"
    asyncio.run(_migrate(f"sqlite+aiosqlite:///{path}"))
    yield path
    shutil.rmtree(folder)


@pytest.fixture
def sqlite_url(sqlite_template: Path, empty_sqlite_url: str) -> str:
    """A migrated SQLite file without rows."""
    path = Path(empty_sqlite_url.removeprefix("sqlite+aiosqlite:///"))
    path.parent.mkdir(mode=0o700)
    shutil.copy(sqlite_template, path)  # with its mode
    return empty_sqlite_url


@pytest.fixture
def empty_sqlite_url() -> Iterator[str]:
    """A SQLite file that does not exist yet; in memory, because commits would be slow on a busy disk."""
    folder = short_folder(in_memory=True)
    yield f"sqlite+aiosqlite:///{folder}/state/quarterdeck.db"
    shutil.rmtree(folder)


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest) -> str:
    """A migrated database without rows, of each kind in turn."""
    # Requested by name, so that tests of SQLite alone do not start PostgreSQL.
    return str(request.getfixturevalue(f"{request.param}_url"))


@pytest.fixture(scope="module", params=["sqlite", pytest.param("postgres", marks=pytest.mark.long)])
def platform_database_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """A database without tables, of each kind in turn, for a platform of processes that a module's tests share."""
    if request.param == "sqlite":
        folder = short_folder()
        yield f"sqlite+aiosqlite:///{folder}/quarterdeck.db"
        shutil.rmtree(folder)
        return
    server: PostgresServer = request.getfixturevalue("postgres_server")
    with asyncio.Runner() as runner:
        made = postgres_database(server, "template0")
        yield runner.run(made.__aenter__())
        runner.run(made.__aexit__(None, None, None))


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """A migrated database without rows, of each kind in turn."""
    subject = Database(database_url)
    yield subject
    await subject.close()
