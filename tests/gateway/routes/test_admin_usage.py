"""Usage is the exact sum of the ledger's rows of the admin's organisation."""

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from tests.gateway.fakes import Client, parts
from tests.gateway.routes.admin_api import ask
from tests.records import a_record

from quarterdeck.gateway.app import create_app
from quarterdeck.gateway.http.request_lifecycle import RequestLifecycle
from quarterdeck.store.database import Database
from quarterdeck.store.keys import KeyStore
from quarterdeck.store.ledger import Ledger

PATH = "/admin/usage"
BOSS, STRANGER = "sk-qd-boss", "sk-qd-stranger"
DAY = 86_400


@pytest.fixture
async def app(database: Database) -> RequestLifecycle:
    store = KeyStore(database)
    await store.create(secret=BOSS, name="boss", is_admin=True)
    await store.create(secret=STRANGER, name="stranger", org="acme", is_admin=True)
    await Ledger(database).insert(
        [
            a_record(key="key_a", team="red", model="m1", started=100.0, cost=Decimal("0.1"), saved=Decimal("0.01")),
            a_record(key="key_a", team="red", model="m2", started=DAY + 1.0, cost=Decimal("0.2")),
            a_record(key="key_b", team="blue", model="m1", started=200.0, cost=Decimal("0.000000000000000001")),
            a_record(org="acme", key="key_c", started=100.0, cost=Decimal(9)),
        ]
    )
    return create_app(parts(keys=store, database=database))


async def usage(app: RequestLifecycle, query: str, *, key: str = BOSS) -> list[dict[str, Any]]:
    answer = await Client(app, key=key).get(f"{PATH}?{query}")
    assert answer.status == 200, answer.body
    assert answer.json["object"] == "list"
    return list(answer.json["data"])


async def test_a_sum_is_exact(app: RequestLifecycle) -> None:
    (total,) = await usage(app, f"start=0&end={2 * DAY}")
    assert total == {
        "object": "usage",
        "requests": 3,
        "input_tokens": 90,
        "cached_tokens": 48,
        "output_tokens": 33,
        "reasoning_tokens": 9,
        "audio_seconds": 0.0,
        "characters": 0,
        "images": 0,
        "cost": "0.300000000000000001",
        "saved": "0.01",
    }


async def test_by_key_team_and_model(app: RequestLifecycle) -> None:
    span = f"start=0&end={2 * DAY}"
    by_key = await usage(app, f"group_by=key&{span}")
    assert [(row["key"], row["cost"]) for row in by_key] == [("key_a", "0.3"), ("key_b", "0.000000000000000001")]
    by_two = await usage(app, f"group_by=team&group_by=model&{span}")
    assert [(row["team"], row["model"], row["requests"]) for row in by_two] == [
        ("blue", "m1", 1),
        ("red", "m1", 1),
        ("red", "m2", 1),
    ]
    (one,) = await usage(app, f"key=key_a&model=m2&{span}")
    assert one["cost"] == "0.2"


async def test_by_day_and_until_the_end(app: RequestLifecycle) -> None:
    rows = await usage(app, f"group_by=key&bucket=day&start=0&end={2 * DAY}")
    assert [(row["key"], row["start"], row["end"]) for row in rows] == [
        ("key_a", 0, DAY),
        ("key_b", 0, DAY),
        ("key_a", DAY, 2 * DAY),
    ]
    assert len(await usage(app, "group_by=key&start=100&end=200")) == 1


async def test_without_times_it_is_this_month(app: RequestLifecycle) -> None:
    answer = (await Client(app, key=BOSS).get(PATH)).json
    assert answer["data"] == []
    assert 0 <= answer["end"] - answer["start"] <= 31 * DAY + 1


async def test_only_the_admins_own_org(app: RequestLifecycle) -> None:
    rows = await usage(app, "group_by=key&start=0&end=1000", key=STRANGER)
    assert [(row["key"], row["cost"]) for row in rows] == [("key_c", "9")]


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("group_by=shoe", "group_by[0]"),
        ("group_by=key&group_by=team&group_by=model&group_by=user", "group_by"),
        ("bucket=minute", "bucket"),
        ("start=tomorrow", "start"),
        ("start=-1", "start"),
        ("start=5&end=5", "end"),
        ("bucket=hour&start=0&end=99999999", "bucket"),
        ("from=0", "from"),
    ],
)
async def test_a_bad_query_names_its_parameter(query: str, param: str, app: RequestLifecycle) -> None:
    answer = await Client(app, key=BOSS).get(f"{PATH}?{query}")
    assert (answer.status, answer.error["param"]) == (400, param)


async def test_more_rows_than_a_response_holds_are_refused(app: RequestLifecycle, database: Database) -> None:
    bounded = create_app(replace(parts(keys=KeyStore(database), database=database), max_usage_rows=1))
    answer = await Client(bounded, key=BOSS).get(f"{PATH}?group_by=key&start=0&end={2 * DAY}")
    assert (answer.status, answer.error["code"]) == (400, "too_many_rows")


@pytest.mark.parametrize(
    ("query", "code"),
    [("key=key_none", "key_not_found"), ("team=none", "team_not_found"), ("model=none", "model_not_found")],
)
async def test_a_filter_that_nothing_has_is_refused(query: str, code: str, app: RequestLifecycle) -> None:
    for path in (PATH, "/admin/requests"):
        assert (await ask(app, "GET", f"{path}?{query}", status=404))["code"] == code
