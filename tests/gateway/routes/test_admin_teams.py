"""Teams, organisations and the file that may own them, over a real database."""

from typing import Any

import pytest
from tests.gateway.fakes import CONFIG, Client, FakePipeline, FakePublisher, config, parts

from quarterdeck.gateway.app import create_app
from quarterdeck.gateway.dependencies import Parts
from quarterdeck.gateway.http.request_lifecycle import RequestLifecycle
from quarterdeck.resources.tenancy.changes import Change
from quarterdeck.store.database import Database
from quarterdeck.store.keys import KeyStore
from quarterdeck.store.orgs import OrgStore
from quarterdeck.store.teams import TeamStore

BOSS, WORKER, STRANGER = "sk-qd-boss", "sk-qd-worker", "sk-qd-stranger"
TEAMS, ORGS, KEYS = "/admin/teams", "/admin/organizations", "/admin/keys"
JSON = [("content-type", "application/json")]
OWNED = (
    CONFIG
    + """
teams:
  filed: {limits: {max_tokens: 7}, budget: {amount: "2.50", on_exhausted: warn}, priority: 2}
org: {budget: {amount: "100"}}
keys:
  ci: {limits: {requests_per_minute: 9}, tags: [file]}
"""
)


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
async def owned(made: Parts, database: Database) -> RequestLifecycle:
    """A gateway whose file names teams, keys and the org."""
    return create_app(parts(FakePipeline(config(OWNED)), keys=made.keys, database=database))


async def ask(
    app: RequestLifecycle, method: str, path: str, body: Any = None, *, key: str = BOSS, status: int = 200
) -> Any:
    client = Client(app, key=key)
    answer = await (client.post(path, body, headers=JSON) if method == "POST" else client.request(method, path))
    assert answer.status == status, answer.body
    return answer.error if status >= 400 else answer.json


async def test_a_team_is_made_found_changed_and_deleted(app: RequestLifecycle, publisher: FakePublisher) -> None:
    budget = {"amount": "0.10", "period": "day"}
    team = await ask(app, "POST", TEAMS, {"id": "blue", "limits": {"max_tokens": 5}, "budget": budget}, status=201)
    assert (team["object"], team["id"], team["org"], team["managed_by"]) == ("team", "blue", "default", "api")
    assert team["budget"] == {"amount": "0.10", "period": "day", "on_exhausted": "deny"}
    assert await ask(app, "GET", f"{TEAMS}/blue") == {**team, "budget_status": None}  # Redis is away
    changed = await ask(app, "POST", f"{TEAMS}/blue", {"priority": 4, "budget": None})
    assert changed == {**team, "priority": 4, "budget": None}
    assert await ask(app, "DELETE", f"{TEAMS}/blue") == {"id": "blue", "object": "team", "deleted": True}
    assert (await ask(app, "GET", f"{TEAMS}/blue", status=404))["code"] == "team_not_found"
    assert publisher.published == [Change("default", team="blue")]


async def test_a_team_is_made_once_and_not_deleted_with_keys(app: RequestLifecycle) -> None:
    assert (await ask(app, "POST", TEAMS, {"id": "red"}, status=409))["code"] == "team_exists"
    assert (await ask(app, "DELETE", f"{TEAMS}/red", status=409))["code"] == "team_not_empty"


async def test_what_a_team_may_take_holds_for_its_known_keys_at_once(app: RequestLifecycle, made: Parts) -> None:
    header = f"Bearer {WORKER}".encode()
    await made.authenticator.authenticate(header)
    await ask(app, "POST", f"{TEAMS}/red", {"limits": {"max_tokens": 3}, "priority": 8})
    await ask(app, "POST", f"{ORGS}/default", {"budget": {"amount": "5"}})
    found = made.authenticator.known(header)
    assert found is not None
    assert (found.limits.max_tokens, found.priority, [scope.id for scope in found.scopes]) == (3, 8, ["org"])


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        (TEAMS, {}, "id"),
        (TEAMS, {"id": "a/b"}, "id"),
        (TEAMS, {"id": "x", "color": 1}, "color"),
        (TEAMS, {"id": "x", "priority": 10}, "priority"),
        (TEAMS, {"id": "x", "limits": {"max_tokens": 0}}, "limits.max_tokens"),
        (TEAMS, {"id": "x", "limits": {"rpm": 1}}, "limits.rpm"),
        (TEAMS, {"id": "x", "budget": {"amount": "-1"}}, "budget.amount"),
        (TEAMS, {"id": "x", "budget": {"amount": "NaN"}}, "budget.amount"),
        (TEAMS, {"id": "x", "budget": {"amount": "1", "period": "year"}}, "budget.period"),
        (f"{TEAMS}/red", {"id": "y"}, "id"),
        (f"{ORGS}/default", {"priority": 1}, "priority"),
        (KEYS, {"name": "x", "tags": ["a\x00"]}, "tags[0]"),
        (KEYS, {"name": "x", "budget": {}}, "budget.amount"),
        (f"{KEYS}/key_1", {"name": None}, "name"),
        (f"{KEYS}/key_1", {"admin": True}, "admin"),
    ],
    ids=str,
)
async def test_a_bad_body_names_its_parameter(path: str, body: Any, param: str, app: RequestLifecycle) -> None:
    error = await ask(app, "POST", path, body, status=400)
    assert (error["type"], error["param"]) == ("invalid_request_error", param)


@pytest.mark.parametrize("path", [KEYS, TEAMS, ORGS, "/admin/usage", f"{TEAMS}/red", "/admin/cache"])
async def test_a_query_that_is_not_known_is_refused(path: str, app: RequestLifecycle) -> None:
    error = await ask(app, "GET", f"{path}?teem=red", status=400)
    assert (error["param"], error["code"]) == ("teem", "unknown_parameter")


async def test_only_an_admin_key_opens_them(app: RequestLifecycle) -> None:
    for method, path in (("GET", TEAMS), ("POST", TEAMS), ("DELETE", f"{TEAMS}/red"), ("GET", ORGS), ("POST", ORGS)):
        assert (await ask(app, method, path, {"id": "x"}, key=WORKER, status=403))["code"] == "admin_key_required"


async def test_teams_come_in_pages_by_name_the_files_among_them(owned: RequestLifecycle) -> None:
    for name in ("a", "z"):
        await ask(owned, "POST", TEAMS, {"id": name}, status=201)
    first = await ask(owned, "GET", f"{TEAMS}?limit=3")
    rest = await ask(owned, "GET", f"{TEAMS}?limit=3&after={first['last_id']}")
    assert [team["id"] for team in first["data"]] == ["a", "default", "filed"]
    assert [team["id"] for team in rest["data"]] == ["red", "z"]
    assert (first["has_more"], rest["has_more"]) == (True, False)


async def test_what_the_file_names_is_shown_and_not_written(owned: RequestLifecycle, database: Database) -> None:
    await TeamStore(database).create("filed", org="acme", priority=9)
    team = await ask(owned, "GET", f"{TEAMS}/filed")
    assert (team["managed_by"], team["limits"], team["priority"]) == ("config", {"max_tokens": 7}, 2)
    assert team["budget"] == {"amount": "2.50", "period": "month", "on_exhausted": "warn"}
    org = await ask(owned, "GET", f"{ORGS}/default")
    assert (org["managed_by"], org["budget"]["amount"]) == ("config", "100")
    for method, path, body in (
        ("POST", TEAMS, {"id": "filed"}),
        ("POST", f"{TEAMS}/filed", {"priority": 1}),
        ("DELETE", f"{TEAMS}/filed", None),
        ("POST", f"{ORGS}/default", {"budget": None}),
        ("POST", KEYS, {"name": "ci", "budget": {"amount": "1"}}),
    ):
        assert (await ask(owned, method, path, body, status=409))["code"] == "managed_by_config", path
    theirs = await ask(owned, "GET", f"{TEAMS}/filed", key=STRANGER)
    assert (theirs["managed_by"], theirs["priority"]) == ("api", 9), "the file speaks of the platform's org"


async def test_a_key_that_the_file_names_is_made_and_ended_here_and_limited_there(owned: RequestLifecycle) -> None:
    made = await ask(owned, "POST", KEYS, {"name": "ci", "models": ["chat"]}, status=201)
    assert (made["managed_by"], made["limits"], made["tags"]) == ("config", {"requests_per_minute": 9}, ["file"])
    path = f"{KEYS}/{made['id']}"
    for body in ({"limits": None}, {"tags": ["x"]}, {"priority": 3}, {"budget": None}, {"name": "free"}):
        error = await ask(owned, "POST", path, body, status=409)
        assert (error["code"], error["param"]) == ("managed_by_config", next(iter(body)))
    assert (await ask(owned, "POST", path, {"models": None, "team": "blue", "name": "ci"}))["models"] is None
    await ask(owned, "POST", f"{path}/rotate")
    await ask(owned, "DELETE", path)


async def test_the_platforms_admins_make_organisations_and_their_first_keys(
    app: RequestLifecycle, database: Database
) -> None:
    org = await ask(app, "POST", ORGS, {"id": "beta", "budget": {"amount": "1"}}, status=201)
    assert (org["object"], org["managed_by"]) == ("organization", "api")
    assert (await ask(app, "POST", ORGS, {"id": "beta"}, status=409))["code"] == "org_exists"
    key = await ask(app, "POST", KEYS, {"name": "first", "org": "beta", "admin": True}, status=201)
    assert key["org"] == "beta"
    assert [found["id"] for found in (await ask(app, "GET", KEYS, key=key["key"]))["data"]] == [key["id"]]
    assert [found["id"] for found in (await ask(app, "GET", ORGS))["data"]] == ["acme", "beta", "default"]
    error = await ask(app, "POST", KEYS, {"name": "x", "org": "nobody"}, status=404)
    assert error["code"] == "org_not_found"
    assert "nobody" not in await OrgStore(database).list()


async def test_another_orgs_admin_sees_its_own_and_does_not_raise_its_bounds(app: RequestLifecycle) -> None:
    assert [org["id"] for org in (await ask(app, "GET", ORGS, key=STRANGER))["data"]] == ["acme"]
    await ask(app, "GET", f"{ORGS}/acme", key=STRANGER)
    for method, path, body in (
        ("GET", f"{ORGS}/default", None),
        ("GET", f"{ORGS}/nobody", None),
        ("POST", ORGS, {"id": "more"}),
        ("POST", f"{ORGS}/acme", {"budget": None}),
        ("POST", KEYS, {"name": "x", "org": "default", "admin": True}),
        ("POST", KEYS, {"name": "x", "org": "nobody"}),
    ):
        await ask(app, method, path, body, key=STRANGER, status=403)
    assert (await ask(app, "GET", f"{TEAMS}/red", key=STRANGER, status=404))["code"] == "team_not_found"
    assert [team["id"] for team in (await ask(app, "GET", TEAMS, key=STRANGER))["data"]] == ["default"]
