"""Teams over a real database, and those that quarterdeck.yaml manages."""

from typing import Any

import pytest
from tests.gateway.fakes import FakePublisher
from tests.gateway.routes.admin_api import KEYS, ORGS, STRANGER, TEAMS, WORKER, ask, refused_body

from quarterdeck.gateway.dependencies import Parts
from quarterdeck.gateway.http.request_lifecycle import RequestLifecycle
from quarterdeck.resources.tenancy.changes import Change
from quarterdeck.settings.limits import Budget
from quarterdeck.store.database import Database
from quarterdeck.store.teams import TeamStore


async def test_a_team_is_made_found_changed_and_deleted(app: RequestLifecycle, publisher: FakePublisher) -> None:
    budget = {"amount": "0.10", "period": "day"}
    team = await ask(app, "POST", TEAMS, {"id": "blue", "limits": {"max_tokens": 5}, "budget": budget}, status=201)
    assert (team["object"], team["id"], team["org"], team["managed_by"]) == ("team", "blue", "default", "api")
    assert team["budget"] == {"amount": "0.10", "period": "day", "on_exhausted": "deny"}
    assert await ask(app, "GET", f"{TEAMS}/blue") == {**team, "keys": 0, "budget_status": None}  # Redis is away
    changed = await ask(app, "POST", f"{TEAMS}/blue", {"priority": 4, "budget": None})
    assert changed == {**team, "priority": 4, "budget": None}
    assert await ask(app, "DELETE", f"{TEAMS}/blue") == {"id": "blue", "object": "team", "deleted": True}
    assert (await ask(app, "GET", f"{TEAMS}/blue", status=404))["code"] == "team_not_found"
    assert publisher.published == [Change("default", team="blue")] * 2
    assert publisher.unspent == [Budget.model_validate(budget), None], "a new team has spent nothing"


@pytest.mark.parametrize("count", [int("9" * 400), 10**12 + 1, 0, -1])
async def test_a_limit_is_a_number_that_can_be_counted(app: RequestLifecycle, count: int) -> None:
    for name in ("requests_per_minute", "tokens_per_minute", "concurrent_requests", "max_tokens"):
        await ask(app, "POST", TEAMS, {"id": "blue", "limits": {name: count}}, status=400)
    assert (await ask(app, "GET", f"{TEAMS}/blue", status=404))["code"] == "team_not_found"


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


async def test_teams_come_in_pages_by_name_the_files_among_them(managed: RequestLifecycle) -> None:
    for name in ("a", "z"):
        await ask(managed, "POST", TEAMS, {"id": name}, status=201)
    first = await ask(managed, "GET", f"{TEAMS}?limit=3")
    rest = await ask(managed, "GET", f"{TEAMS}?limit=3&after={first['last_id']}")
    assert [team["id"] for team in first["data"]] == ["a", "default", "filed"]
    assert [team["id"] for team in rest["data"]] == ["red", "z"]
    assert (first["has_more"], rest["has_more"]) == (True, False)


async def test_what_the_file_names_is_shown_and_not_written(managed: RequestLifecycle, database: Database) -> None:
    await TeamStore(database).create("filed", org="acme", priority=9)
    team = await ask(managed, "GET", f"{TEAMS}/filed")
    assert (team["managed_by"], team["limits"], team["priority"]) == ("config", {"max_tokens": 7}, 2)
    assert team["budget"] == {"amount": "2.50", "period": "month", "on_exhausted": "warn"}
    org = await ask(managed, "GET", f"{ORGS}/default")
    assert (org["managed_by"], org["budget"]["amount"]) == ("config", "100")
    for method, path, body in (
        ("POST", TEAMS, {"id": "filed"}),
        ("POST", f"{TEAMS}/filed", {"priority": 1}),
        ("DELETE", f"{TEAMS}/filed", None),
        ("POST", f"{ORGS}/default", {"budget": None}),
        ("POST", KEYS, {"name": "ci", "budget": {"amount": "1"}}),
    ):
        assert (await ask(managed, method, path, body, status=409))["code"] == "managed_by_config", path
    theirs = await ask(managed, "GET", f"{TEAMS}/filed", key=STRANGER)
    assert (theirs["managed_by"], theirs["priority"]) == ("api", 9), "the file manages the platform's organisation only"


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
    ],
    ids=str,
)
async def test_a_bad_body_names_its_parameter(path: str, body: Any, param: str, app: RequestLifecycle) -> None:
    assert await refused_body(app, path, body) == param


async def test_only_an_admin_key_opens_them(app: RequestLifecycle) -> None:
    for method, path in (("GET", TEAMS), ("POST", TEAMS), ("DELETE", f"{TEAMS}/red")):
        assert (await ask(app, method, path, {"id": "x"}, key=WORKER, status=403))["code"] == "admin_key_required"
