"""Organisations: created by admins of the platform, read by their own."""

from typing import Any

import pytest
from tests.gateway.routes.admin_api import KEYS, ORGS, STRANGER, TEAMS, WORKER, ask, refused_body

from quarterdeck.gateway.http.request_lifecycle import RequestLifecycle
from quarterdeck.store.database import Database
from quarterdeck.store.orgs import OrgStore


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


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        (f"{ORGS}/default", {"priority": 1}, "priority"),
    ],
    ids=str,
)
async def test_a_bad_body_names_its_parameter(path: str, body: Any, param: str, app: RequestLifecycle) -> None:
    assert await refused_body(app, path, body) == param


async def test_only_an_admin_key_opens_them(app: RequestLifecycle) -> None:
    for method in ("GET", "POST"):
        assert (await ask(app, method, ORGS, {"id": "x"}, key=WORKER, status=403))["code"] == "admin_key_required"


async def test_an_organisation_is_deleted_with_its_keys_by_the_platforms_admins(app: RequestLifecycle) -> None:
    path = f"{ORGS}/acme"
    for key in (STRANGER, WORKER):
        await ask(app, "DELETE", path, key=key, status=403)
    assert (await ask(app, "DELETE", path, status=409))["code"] == "org_not_empty"
    done = await ask(app, "DELETE", f"{path}?revoke_keys=true")
    assert done == {"id": "acme", "object": "organization", "deleted": True, "revoked_keys": 1}
    assert (await ask(app, "GET", KEYS, key=STRANGER, status=401))["code"] == "invalid_api_key"
    assert (await ask(app, "GET", path, status=404))["code"] == "org_not_found"
    assert (await ask(app, "GET", "/admin/usage?org=acme"))["data"] == []  # what it used is still accounted for
    assert (await ask(app, "POST", ORGS, {"id": "acme"}, status=409))["code"] == "org_exists"


async def test_the_platforms_own_organisation_is_not_deleted(app: RequestLifecycle) -> None:
    error = await ask(app, "DELETE", f"{ORGS}/default?revoke_keys=true", status=409)
    assert error["code"] == "org_required"
    await ask(app, "GET", KEYS)
