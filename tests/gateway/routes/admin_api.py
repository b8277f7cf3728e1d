"""The admin API in these tests: its paths, three keys, and a file that manages some objects."""

from typing import Any

from tests.gateway.fakes import CONFIG, Client

from quarterdeck.gateway.http.request_lifecycle import RequestLifecycle

BOSS, WORKER, STRANGER = "sk-qd-boss", "sk-qd-worker", "sk-qd-stranger"
"""An admin and another key of the platform's organisation, and an admin of another, `acme`."""
TEAMS, ORGS, KEYS = "/admin/teams", "/admin/organizations", "/admin/keys"
JSON = [("content-type", "application/json")]
MANAGED = (
    CONFIG
    + """
teams:
  filed: {limits: {max_tokens: 7}, budget: {amount: "2.50", on_exhausted: warn}, priority: 2}
org: {budget: {amount: "100"}}
keys:
  ci: {limits: {requests_per_minute: 9}, tags: [file]}
"""
)


async def ask(
    app: RequestLifecycle, method: str, path: str, body: Any = None, *, key: str = BOSS, status: int = 200
) -> Any:
    """The JSON of a response with this status, or its error."""
    client = Client(app, key=key)
    answer = await (client.post(path, body, headers=JSON) if method == "POST" else client.request(method, path))
    assert answer.status == status, answer.body
    return answer.error if status >= 400 else answer.json


async def refused_body(app: RequestLifecycle, path: str, body: Any) -> str:
    """The parameter that a 400 names."""
    error = await ask(app, "POST", path, body, status=400)
    assert error["type"] == "invalid_request_error"
    return str(error["param"])
