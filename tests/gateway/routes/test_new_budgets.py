"""Budgets of new keys, teams and organisations: counted from their first request on, without a worker."""

from decimal import Decimal
from typing import Any, cast

import pytest
from tests.accounting.spending import a_reservation, settle
from tests.gateway.fakes import FakePublisher, parts
from tests.gateway.routes.admin_api import BOSS, KEYS, ORGS, TEAMS, ask

from quarterdeck.accounting import admission
from quarterdeck.accounting.principal import Principal
from quarterdeck.gateway.app import create_app
from quarterdeck.gateway.dependencies import Parts
from quarterdeck.gateway.http.request_lifecycle import RequestLifecycle
from quarterdeck.inference.cache.key import _SCOPES
from quarterdeck.net.redis import Redis
from quarterdeck.resources.tenancy.changes import RedisPublisher
from quarterdeck.store.database import Database
from quarterdeck.store.keys import KeyStore

BUDGET = {"amount": "3"}


@pytest.fixture
async def made(redis: Redis, database: Database) -> Parts:
    store = KeyStore(database)
    await store.create(secret=BOSS, name="boss", is_admin=True)
    return parts(keys=store, database=database, redis=redis, publisher=cast(FakePublisher, RedisPublisher(redis)))


@pytest.fixture
def app(made: Parts) -> RequestLifecycle:
    return create_app(made)


async def principal(made: Parts, key: dict[str, Any]) -> Principal:
    return await made.authenticator.authenticate(b"Bearer " + key["key"].encode())


async def test_the_first_requests_of_a_new_team_are_admitted(app: RequestLifecycle, made: Parts, redis: Redis) -> None:
    await ask(app, "POST", TEAMS, {"id": "t", "budget": BUDGET}, status=201)
    key = await ask(app, "POST", KEYS, {"name": "k", "team": "t", "budget": BUDGET}, status=201)
    wanted = a_reservation((await principal(made, key)).scope_set, 5)
    assert (await admission.reserve(redis, wanted)).refused is None


async def test_the_first_requests_of_a_new_organisation_are_admitted(
    app: RequestLifecycle, made: Parts, redis: Redis
) -> None:
    await ask(app, "POST", ORGS, {"id": "beta", "budget": BUDGET}, status=201)
    key = await ask(app, "POST", KEYS, {"name": "k", "org": "beta"}, status=201)
    wanted = a_reservation((await principal(made, key)).scope_set, 5)
    assert (await admission.reserve(redis, wanted)).refused is None


async def test_a_team_made_anew_has_spent_nothing_and_shares_no_answers(
    app: RequestLifecycle, made: Parts, redis: Redis
) -> None:
    scopes = []
    for _ in range(2):
        await ask(app, "POST", TEAMS, {"id": "t", "budget": BUDGET}, status=201)
        key = await ask(app, "POST", KEYS, {"name": "k", "team": "t"}, status=201)
        member = await principal(made, key)
        wanted = a_reservation(member.scope_set, 2_000_000)
        assert (await admission.reserve(redis, wanted)).refused is None
        await settle(redis, wanted, Decimal(2))
        status = (await ask(app, "GET", f"{TEAMS}/t"))["budget_status"]
        assert (status["spent"], status["held"], status["is_counting"]) == ("2", "0", False)
        scopes.append(_SCOPES["team"](member))
        await ask(app, "DELETE", f"{KEYS}/{key['id']}")
        await ask(app, "DELETE", f"{TEAMS}/t")
    assert scopes[0] != scopes[1]
