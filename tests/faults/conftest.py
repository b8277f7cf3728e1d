"""Stacks for fault tests: started once, repaired before each test."""

import asyncio
import shutil
import signal
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path

import asyncpg
import pytest
from tests.faults.engine_list import FakeEngineList
from tests.faults.response_stack import ResponseStack
from tests.faults.stack import Stack, engine, replica, signal_to
from tests.platform import SimulatorProcess
from tests.servers import PostgresServer, RedisServer, short_folder
from tests.telemetry.otlp_sink import OTLPSink

Engines = Mapping[str, SimulatorProcess]


@pytest.fixture(scope="session")
def fault_folder() -> Iterator[Path]:
    folder = short_folder()
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def fault_redis(fault_folder: Path) -> Iterator[RedisServer]:
    server = RedisServer(fault_folder, durable=True)
    yield server
    server.stop()


@pytest.fixture(scope="session")
def fault_engines(fault_folder: Path) -> Iterator[Engines]:
    engines = {"a": engine(fault_folder, "a"), "b": engine(fault_folder, "b"), "c": replica(fault_folder)}
    yield engines
    for simulator in engines.values():
        simulator.kill()


@pytest.fixture(scope="session")
def fault_engine_list(fault_engines: Engines) -> Iterator[FakeEngineList]:
    door = FakeEngineList(fault_engines["c"])
    door.start()
    yield door
    door.stop()


@pytest.fixture(scope="session")
def fault_sink() -> Iterator[OTLPSink]:
    sink = OTLPSink().start()
    yield sink
    sink.stop()


@pytest.fixture(scope="session")
def sqlite_stack(
    fault_folder: Path,
    fault_redis: RedisServer,
    fault_engines: Engines,
    fault_engine_list: FakeEngineList,
    fault_sink: OTLPSink,
) -> Iterator[Stack]:
    folder = fault_folder / "sqlite"
    folder.mkdir()
    url = f"sqlite+aiosqlite:///{folder}/quarterdeck.db"
    made = Stack(folder, fault_redis, fault_engines, fault_engine_list, url, environ=fault_sink.environment)
    yield made
    made.stop()


@pytest.fixture
async def stack(sqlite_stack: Stack) -> AsyncIterator[Stack]:
    """A complete stack on SQLite; the worker sends traces to `fault_sink`."""
    await sqlite_stack.whole()
    yield sqlite_stack


@pytest.fixture(scope="session")
def postgres_session_stack(
    fault_folder: Path,
    fault_redis: RedisServer,
    fault_engines: Engines,
    fault_engine_list: FakeEngineList,
    postgres_server: PostgresServer,
    fault_sink: OTLPSink,
) -> Iterator[Stack]:
    folder = fault_folder / "postgres"
    folder.mkdir()
    url = postgres_server.url("postgres")
    made = Stack(folder, fault_redis, fault_engines, fault_engine_list, url, index=1, environ=fault_sink.environment)
    yield made
    made.stop()


@pytest.fixture
async def postgres_stack(postgres_server: PostgresServer, postgres_session_stack: Stack) -> AsyncIterator[Stack]:
    """A complete stack on PostgreSQL."""
    if postgres_server.process is None:
        postgres_server.start()
    signal_to(postgres_server, signal.SIGCONT, children=True)
    await postgres_session_stack.whole()
    yield postgres_session_stack


@pytest.fixture(scope="session", params=["sqlite", "postgres"])
def session_response_stack(request: pytest.FixtureRequest) -> Iterator[ResponseStack]:
    folder = short_folder()
    url = f"sqlite+aiosqlite:///{folder}/quarterdeck.db"
    if request.param == "postgres":
        server: PostgresServer = request.getfixturevalue("postgres_server")
        asyncio.run(_create_database(server, "responses"))
        url = server.url("responses")
    redis = RedisServer(folder, durable=True)
    redis.start()
    made = ResponseStack(folder, redis, url)
    try:
        made.start()
        yield made
    finally:
        made.stop()
        shutil.rmtree(folder)


async def _create_database(server: PostgresServer, name: str) -> None:
    connection = await asyncpg.connect(server.dsn())
    await connection.execute(f"CREATE DATABASE {name} TEMPLATE template0")
    await connection.close()


@pytest.fixture
def response_stack(session_response_stack: ResponseStack) -> ResponseStack:
    """A complete stack for responses, on each kind of database in turn."""
    session_response_stack.repair()
    return session_response_stack
