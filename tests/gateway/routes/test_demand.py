"""`/demand` is for the holder of the operator's token, and for no API key."""

import asyncio
from dataclasses import replace

import pytest
from tests.gateway.fakes import ADMIN, Client, FakeEndpoints, endpoint, parts

from quarterdeck.gateway.app import create_app
from quarterdeck.gateway.cluster.demand import Demand
from quarterdeck.gateway.dependencies import DemandDoor
from quarterdeck.gateway.http.request_lifecycle import RequestLifecycle

TOKEN = "an-operator-token-of-some-length"


@pytest.fixture
def demand() -> Demand:
    return Demand(FakeEndpoints(endpoint("a#1", "a", requests=2)), dict, lambda: False)


@pytest.fixture
def app(demand: Demand) -> RequestLifecycle:
    return create_app(replace(parts(), demand=DemandDoor(demand, TOKEN)))


async def test_the_token_opens_it(app: RequestLifecycle) -> None:
    answer = await Client(app, TOKEN).request("GET", "/demand")
    assert answer.status == 200
    assert answer.json["models"]["a"]["in_flight"] == 2
    assert answer.json["draining"] is False


@pytest.mark.parametrize("key", [None, ADMIN, "wrong", TOKEN + "x", TOKEN[:-1]])
async def test_nothing_else_does(app: RequestLifecycle, key: str | None) -> None:
    answer = await Client(app, key).request("GET", "/demand")
    assert (answer.status, answer.error["type"]) == (401, "authentication_error")


async def test_without_an_operator_there_is_no_such_route() -> None:
    answer = await Client(create_app(parts()), ADMIN).request("GET", "/demand")
    assert (answer.status, answer.error["code"]) == (404, "unknown_url")


async def test_the_token_opens_nothing_else(app: RequestLifecycle) -> None:
    answer = await Client(app, TOKEN).request("GET", "/admin/keys")
    assert answer.status == 401


@pytest.mark.parametrize("query", ["wait=31", "wait=-1", "wait=x", "after=-1"])
async def test_a_wait_has_bounds(app: RequestLifecycle, query: str) -> None:
    answer = await Client(app, TOKEN).request("GET", f"/demand?{query}")
    assert answer.status == 400


async def test_an_answer_that_is_waited_for_comes_with_the_news(
    app: RequestLifecycle, demand: Demand, monkeypatch: pytest.MonkeyPatch
) -> None:
    began, changed = asyncio.Event(), demand.changed

    async def noted(after: int, seconds: float) -> None:
        began.set()
        await changed(after, seconds)

    monkeypatch.setattr(demand, "changed", noted)
    request = asyncio.create_task(Client(app, TOKEN).request("GET", "/demand?wait=30&after=1"))
    await began.wait()
    assert not request.done()
    demand.announce("a")
    assert (await request).json["version"] == 2
