"""`quarterdeck feedback`."""

from tests.cli.admin_api import AdminAPI

SCORE = {
    "id": "score_1",
    "object": "score",
    "request_id": "req_1",
    "name": "feedback",
    "user": None,
    "source": "api",
    "thumbs": "up",
    "value": None,
    "category": None,
    "comment": "fine\x1b[2J",
    "status": "recorded",
    "created": 1_800_000_000,
    "updated": 1_800_000_000,
}


def test_a_request_is_scored(admin: AdminAPI) -> None:
    admin.answers["POST", "/admin/scores"] = SCORE
    text = admin.run("feedback", "create", "req_1", "--thumbs", "up", "--comment", "fine").stdout
    assert admin.requests == [("POST", "/admin/scores", {"request_id": "req_1", "thumbs": "up", "comment": "fine"})]
    assert "score_1" in text and "\x1b" not in text


def test_scores_are_a_table(admin: AdminAPI) -> None:
    admin.answers["GET", "/admin/scores"] = {"object": "list", "data": [SCORE], "has_more": False}
    head, line = admin.run("feedback", "list", "--request", "req_1").stdout.splitlines()
    assert head.split()[:2] == ["SCORE", "UPDATED"]
    assert "up fine" in line and "\x1b" not in line
    assert admin.requests[0][2]["request_id"] == "req_1"


def test_a_score_is_deleted(admin: AdminAPI) -> None:
    admin.answers["DELETE", "/admin/scores/score_1"] = {"id": "score_1", "deleted": True}
    assert admin.run("feedback", "delete", "score_1").stdout == "deleted score_1\n"
