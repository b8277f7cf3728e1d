"""All budgets of an organisation in one list, with what is spent of them."""

import time

import pytest
from tests.gateway.fakes import parts
from tests.gateway.routes.admin_api import ORGS, STRANGER, TEAMS, WORKER, ask

from quarterdeck.accounting.periods import period_end, period_start
from quarterdeck.gateway.app import create_app
from quarterdeck.gateway.dependencies import Parts
from quarterdeck.gateway.http.request_lifecycle import RequestLifecycle
from quarterdeck.net.redis import Redis
from quarterdeck.store.database import Database

BUDGET = {"amount": "10", "period": "week"}


@pytest.fixture
def app(made: Parts, database: Database, redis: Redis) -> RequestLifecycle:
    return create_app(parts(keys=made.keys, database=database, redis=redis))


async def test_while_redis_is_away_they_are_a_503(made: Parts) -> None:
    assert (await ask(create_app(made), "GET", "/admin/budgets", status=503))["code"] == "limits_unavailable"


async def test_budgets_are_listed_with_their_status(app: RequestLifecycle) -> None:
    assert (await ask(app, "GET", "/admin/budgets"))["data"] == []
    await ask(app, "POST", f"{ORGS}/default", {"budget": {"amount": "5", "period": "total"}})
    await ask(app, "POST", TEAMS, {"id": "blue", "budget": BUDGET}, status=201)
    await ask(app, "POST", "/admin/keys", {"name": "ci", "team": "blue", "budget": BUDGET}, status=201)
    found = await ask(app, "GET", "/admin/budgets")
    assert [(each["scope"], each["name"]) for each in found["data"]] == [
        ("organization", "default"),
        ("team", "blue"),
        ("key", "ci"),
    ]
    team = found["data"][1]
    now = time.time()
    assert team["period_start"] == period_start("week", now) and team["period_end"] == period_end("week", now)
    assert (team["amount"], team["spent"], team["left"], team["period"]) == ("10", "0", "10", "week")
    assert found["data"][0]["period_end"] is None
    assert (await ask(app, "GET", "/admin/budgets", key=STRANGER))["data"] == []
    await ask(app, "GET", "/admin/budgets", key=WORKER, status=403)
