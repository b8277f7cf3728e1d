"""A team's keys score its requests; admins score all of their organisation's."""

from typing import Any

import pytest
from tests.gateway.fakes import Client
from tests.gateway.routes.admin_api import BOSS, JSON, STRANGER, WORKER, ask
from tests.records import a_record

from quarterdeck.gateway.http.request_lifecycle import RequestLifecycle
from quarterdeck.store.database import Database
from quarterdeck.store.ledger import Ledger

FEEDBACK, SCORES = "/v1/feedback", "/admin/scores"
MINE, THEIRS = "req_" + "1" * 32, "req_" + "2" * 32


@pytest.fixture(autouse=True)
async def requests(database: Database) -> None:
    await Ledger(database).insert([a_record(id=MINE, team="red"), a_record(id=THEIRS, team="blue")])


async def post(app: RequestLifecycle, body: dict[str, Any], *, key: str = WORKER, path: str = FEEDBACK) -> Any:
    """The worker's key is of team red."""
    answer = await Client(app, key=key).post(path, {"request_id": MINE, **body}, headers=JSON)
    return answer.status, answer.json


@pytest.mark.parametrize(
    "said", [{"thumbs": "up"}, {"thumbs": "down"}, {"value": -0.5}, {"category": "off topic"}, {"comment": "Nice"}]
)
async def test_each_kind_of_feedback_is_stored_as_it_was_given(app: RequestLifecycle, said: dict[str, Any]) -> None:
    status, score = await post(app, {**said, "user": "u"})
    assert (status, score["object"], score["status"], score["source"]) == (201, "score", "recorded", "feedback")
    assert score.items() >= {**said, "request_id": MINE, "name": "feedback", "user": "u", "team": "red"}.items()
    assert (await ask(app, "GET", f"{FEEDBACK}?request_id={MINE}", key=WORKER))["data"] == [score]
    assert (await ask(app, "GET", f"/admin/requests/{MINE}"))["scores"] == [score]


async def test_the_second_time_replaces_the_first(app: RequestLifecycle) -> None:
    _, first = await post(app, {"thumbs": "up"})
    status, second = await post(app, {"thumbs": "down"})
    assert (status, second["id"], second["thumbs"]) == (200, first["id"], "down")


async def test_another_teams_request_is_a_404(app: RequestLifecycle) -> None:
    status, body = await post(app, {"thumbs": "up", "request_id": THEIRS})
    assert (status, body["error"]["code"], body["error"]["param"]) == (404, "request_not_found", "request_id")


async def test_a_request_that_is_not_in_the_ledger_yet_is_pending(app: RequestLifecycle) -> None:
    status, score = await post(app, {"thumbs": "up", "request_id": "req_" + "3" * 32})
    assert (status, score["status"]) == (201, "pending")


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, None),
        ({"thumbs": "up", "value": 1}, None),
        ({"thumbs": "sideways"}, "thumbs"),
        ({"value": "NaN"}, "value"),
        ({"value": 1.7e308}, "value"),  # a comparison of versions squares it
        ({"value": True}, "value"),
        ({"comment": "x" * 5000}, "comment"),
        ({"thumbs": "up", "request_id": "chatcmpl-1"}, "request_id"),
        ({"thumbs": "up", "name": "a\nb"}, "name"),
        ({"thumbs": "up", "trace": 1}, "trace"),
    ],
)
async def test_bad_feedback_is_a_400_that_names_the_field(
    app: RequestLifecycle, body: dict[str, Any], param: str | None
) -> None:
    status, answer = await post(app, body)
    assert (status, answer["error"]["type"]) == (400, "invalid_request_error")
    if param is not None:
        assert answer["error"]["param"] == param


async def test_a_comment_is_redacted_before_it_is_stored(app: RequestLifecycle) -> None:
    _, score = await post(app, {"comment": "ask bob@example.com"})
    assert score["comment"] == "ask [email]"


async def test_a_key_lists_and_deletes_its_teams_scores_only(app: RequestLifecycle) -> None:
    _, mine = await post(app, {"thumbs": "up"})
    _, theirs = await post(app, {"thumbs": "up", "request_id": THEIRS}, key=BOSS, path=SCORES)
    assert [score["id"] for score in (await ask(app, "GET", FEEDBACK, key=WORKER))["data"]] == [mine["id"]]
    assert (await ask(app, "DELETE", f"{FEEDBACK}/{theirs['id']}", key=WORKER, status=404))["code"] == "score_not_found"
    deleted = await ask(app, "DELETE", f"{FEEDBACK}/{mine['id']}", key=WORKER)
    assert deleted == {"id": mine["id"], "object": "score", "deleted": True}
    assert (await ask(app, "GET", FEEDBACK, key=WORKER))["data"] == []


async def test_admins_score_and_list_the_whole_organisation_and_no_other(app: RequestLifecycle) -> None:
    status, score = await post(app, {"value": 0.9, "name": "faithful"}, key=BOSS, path=SCORES)
    assert (status, score["source"], score["team"]) == (201, "api", "red")
    found = await ask(app, "GET", f"{SCORES}?name=faithful&team=red&source=api")
    assert [each["id"] for each in found["data"]] == [score["id"]]
    assert (await ask(app, "GET", SCORES, key=STRANGER))["data"] == []
    status, _ = await post(app, {"value": 1}, key=STRANGER, path=SCORES)
    assert status == 404
    await ask(app, "DELETE", f"{SCORES}/{score['id']}", key=STRANGER, status=404)
    await ask(app, "DELETE", f"{SCORES}/{score['id']}")
    assert (await ask(app, "GET", SCORES, key=WORKER, status=403))["code"] == "admin_key_required"
