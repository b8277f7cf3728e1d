"""`quarterdeck webhooks`."""

import pytest
from tests.cli.admin_api import AdminAPI

HOOK = {
    "id": "whk_1",
    "object": "webhook_endpoint",
    "name": "ops\x1b[2J",
    "url": "https://example.com/",
    "event_types": ["budget.threshold_reached"],
    "all_event_types": True,
    "enabled": True,
    "disabled_reason": None,
    "signing_secret_hint": "whsec_…abc=",
    "created_at": 1_800_000_000,
    "updated_at": 1_800_000_000,
}
DELIVERY = {
    "id": "whd_1",
    "event_type": "budget.threshold_reached",
    "status": "pending",
    "attempts": 2,
    "status_code": 500,
    "error": "HTTP 500",
    "created_at": 1_800_000_000,
}


def test_the_secret_is_alone_on_stdout(admin: AdminAPI) -> None:
    admin.answers["POST", "/admin/webhooks"] = {**HOOK, "signing_secret": "whsec_xyz="}
    made = admin.run("webhooks", "create", "https://example.com/", "--event", "budget.threshold_reached")
    assert made.stdout == "whsec_xyz=\n"
    assert admin.requests[0][2] == {"url": "https://example.com/", "event_types": ["budget.threshold_reached"]}


def test_endpoints_and_deliveries_are_shown(admin: AdminAPI) -> None:
    admin.answers["GET", "/admin/webhooks"] = {"object": "list", "data": [HOOK], "has_more": False}
    admin.answers["GET", "/admin/webhooks/whk_1"] = HOOK
    admin.answers["GET", "/admin/webhooks/whk_1/deliveries"] = {"data": [DELIVERY]}
    listed, shown = admin.run("webhooks", "list").stdout, admin.run("webhooks", "show", "whk_1").stdout
    assert "enabled" in listed and "all" in listed and "\x1b" not in listed + shown
    assert "HTTP 500" in shown.splitlines()[-1]


def test_all_events_replace_some(admin: AdminAPI) -> None:
    admin.answers["POST", "/admin/webhooks/whk_1"] = HOOK
    admin.run("webhooks", "update", "whk_1", "--all-events", "--disable")
    assert admin.requests[0][2] == {"event_types": None, "enabled": False}
    assert admin.run("webhooks", "update", "whk_1").exit_code == 2


@pytest.mark.parametrize(
    ("outcome", "code", "text"),
    [
        ({"success": True, "status": "delivered", "status_code": 204, "error": None}, 0, "HTTP 204"),
        ({"success": False, "status": "failed", "status_code": 500, "error": "HTTP 500"}, 1, "HTTP 500"),
        ({"success": False, "status": "pending", "status_code": None, "error": None}, 1, "worker"),
    ],
)
def test_a_test_that_is_not_delivered_is_an_exit_code(
    admin: AdminAPI, outcome: dict[str, object], code: int, text: str
) -> None:
    admin.answers["POST", "/admin/webhooks/whk_1/test"] = outcome
    done = admin.run("webhooks", "test", "whk_1")
    assert done.exit_code == code and text in done.output
