"""Admins set what is kept of inputs and outputs, for keys, teams and organisations."""

import pytest
from tests.gateway.routes.admin_api import KEYS, ORGS, STRANGER, TEAMS, ask

from quarterdeck.gateway.http.request_lifecycle import RequestLifecycle


@pytest.mark.parametrize(
    ("path", "body"), [(KEYS, {"name": "x"}), (TEAMS, {"id": "x"}), (ORGS, {"id": "x"})], ids=["key", "team", "org"]
)
async def test_a_level_is_set_changed_and_removed(app: RequestLifecycle, path: str, body: dict[str, str]) -> None:
    made = await ask(app, "POST", path, {**body, "content": "full"}, status=201)
    one = f"{path}/{made['id']}"
    assert made["content"] == "full"
    assert (await ask(app, "POST", one, {"content": "hashed"}))["content"] == "hashed"
    assert (await ask(app, "POST", one, {"limits": {"max_tokens": 5}}))["content"] == "hashed"
    assert (await ask(app, "POST", one, {"content": None}))["content"] is None
    assert (await ask(app, "GET", one))["content"] is None
    error = await ask(app, "POST", one, {"content": "everything"}, status=400)
    assert error["param"] == "content"


async def test_an_organisation_has_its_own_days(app: RequestLifecycle) -> None:
    made = await ask(app, "POST", ORGS, {"id": "x", "content_days": 7}, status=201)
    assert made["content_days"] == 7
    assert (await ask(app, "POST", f"{ORGS}/x", {"content_days": None}))["content_days"] is None
    assert (await ask(app, "POST", f"{ORGS}/x", {"content_days": 0}, status=400))["param"] == "content_days"


async def test_an_admin_of_another_organisation_cannot_turn_on_what_the_platform_turned_off(
    app: RequestLifecycle,
) -> None:
    await ask(app, "POST", f"{ORGS}/acme", {"content": "off"})
    error = await ask(app, "POST", f"{ORGS}/acme", {"content": "full"}, key=STRANGER, status=403)
    assert error["code"] == "platform_admin_required"


async def test_what_the_file_manages_is_not_changed_by_api(managed: RequestLifecycle) -> None:
    for path in (f"{TEAMS}/filed", f"{ORGS}/default"):
        error = await ask(managed, "POST", path, {"content": "full"}, status=409)
        assert error["code"] == "managed_by_config"
