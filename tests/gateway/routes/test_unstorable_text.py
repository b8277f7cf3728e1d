"""Text that PostgreSQL cannot store, in every path and query of the admin API: refused, and never a 500."""

import pytest
from tests.gateway.fakes import Client
from tests.gateway.routes.admin_api import BOSS, KEYS, ORGS, TEAMS, ask

from quarterdeck.gateway.http.request_lifecycle import RequestLifecycle

PATHS = [
    *(("GET", f"{path}/{{}}") for path in (KEYS, TEAMS, ORGS)),
    *(("POST", f"{path}/{{}}") for path in (KEYS, TEAMS, ORGS)),
    *(("DELETE", f"{path}/{{}}") for path in (KEYS, TEAMS)),
    ("POST", f"{KEYS}/{{}}/rotate"),
    ("GET", "/v1/models/{}"),
    ("GET", "/{}"),
]
QUERIES = [
    *(f"{path}?after=%00" for path in (KEYS, TEAMS, ORGS)),
    *(f"/admin/usage?{name}=a%00b" for name in ("user", "model", "key", "team", "org", "tag", "group_by")),
    "/admin/cache?model=%00",
]


@pytest.mark.parametrize("text", ["\0", "a\0b", "\udcff"])
async def test_a_path_with_such_text_names_nothing(app: RequestLifecycle, text: str) -> None:
    for method, path in PATHS:
        client = Client(app, key=BOSS)
        answer = await client.request(method, path.format(text), b"{}", headers=[("content-type", "application/json")])
        assert (answer.status, answer.error["code"]) == (404, "unknown_url"), path


async def test_a_query_with_such_text_is_a_400(app: RequestLifecycle) -> None:
    for path in QUERIES:
        answer = await Client(app, key=BOSS).get(path)
        assert answer.status == 400, path


async def test_a_body_with_such_text_is_a_400(app: RequestLifecycle) -> None:
    for path, body in (
        (KEYS, {"name": "a\0"}),
        (KEYS, {"name": "a", "models": ["\0"]}),
        (KEYS, {"name": "a", "tags": ["\0"]}),
        (KEYS, {"name": "a", "team": "\0"}),
        (KEYS, {"name": "a", "org": "\0"}),
        (TEAMS, {"id": "\0"}),
        (ORGS, {"id": "\0"}),
        (KEYS, {"name": "\ud800"}),
    ):
        await ask(app, "POST", path, body, status=400)
