"""A gateway over a real database with the keys of `admin_api`."""

import pytest
from tests.gateway.fakes import FakePipeline, FakePublisher, config, parts
from tests.gateway.routes.admin_api import BOSS, MANAGED, STRANGER, WORKER

from quarterdeck.gateway.app import create_app
from quarterdeck.gateway.dependencies import Parts
from quarterdeck.gateway.http.request_lifecycle import RequestLifecycle
from quarterdeck.store.database import Database
from quarterdeck.store.keys import KeyStore


@pytest.fixture
def publisher() -> FakePublisher:
    return FakePublisher()


@pytest.fixture
async def made(database: Database, publisher: FakePublisher) -> Parts:
    store = KeyStore(database)
    await store.create(secret=BOSS, name="boss", is_admin=True)
    await store.create(secret=WORKER, name="worker", team="red")
    await store.create(secret=STRANGER, name="stranger", org="acme", is_admin=True)
    return parts(keys=store, database=database, publisher=publisher)


@pytest.fixture
def app(made: Parts) -> RequestLifecycle:
    return create_app(made)


@pytest.fixture
async def managed(made: Parts, database: Database) -> RequestLifecycle:
    """A gateway whose file names teams, keys and the organisation."""
    return create_app(parts(FakePipeline(config(MANAGED)), keys=made.keys, database=database))
