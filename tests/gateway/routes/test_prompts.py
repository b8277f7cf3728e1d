"""Prompts over a real database: admins write, keys of their teams read, errors name what is wrong."""

import json
from typing import Any

import pytest
from tests.gateway.fakes import Client
from tests.gateway.routes.admin_api import BOSS, STRANGER, WORKER, ask
from tests.records import a_record

from quarterdeck.content import Content
from quarterdeck.gateway.http.request_lifecycle import RequestLifecycle
from quarterdeck.store.contents import ContentStore
from quarterdeck.store.database import Database
from quarterdeck.store.ledger import Ledger
from quarterdeck.store.scores import Score, ScoreStore, new_id

PATH = "/v1/prompts"
GREET: dict[str, Any] = {
    "name": "greet",
    "messages": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Greet {{ name }}"}],
    "model": "chat",
    "parameters": {"temperature": 0.5},
}


async def create(app: RequestLifecycle, **fields: Any) -> dict[str, Any]:
    made: dict[str, Any] = await ask(app, "POST", PATH, {**GREET, **fields}, status=201)
    return made


async def test_a_prompts_life(app: RequestLifecycle) -> None:
    made = await create(app, message="first")
    assert (made["object"], made["name"], made["latest_version"], made["labels"]) == (
        "prompt",
        "greet",
        1,
        {"production": {"version": 1}},
    )
    second = {"messages": [{"role": "user", "content": "Greet {{ name }} and go"}], "base": 1, "labels": ["staging"]}
    version = await ask(app, "POST", f"{PATH}/greet/versions", second, status=201)
    assert (version["object"], version["version"], version["type"], version["name"]) == (
        "prompt.version",
        2,
        "chat",
        "greet",
    )
    assert (await ask(app, "POST", f"{PATH}/greet/versions", {**second, "base": 2}))["version"] == 2
    split = {"split": [{"version": 1, "weight": 90}, {"version": 2, "weight": 10}], "guard": {"max_error_rate": 0.1}}
    label = await ask(app, "POST", f"{PATH}/greet/labels/production", {**split, "reason": "try it"})
    assert (label["object"], label["id"], label["sticky"], label["guard"]) == (
        "prompt.label",
        "production",
        "user",
        {"min_requests": 50, "max_error_rate": 0.1},
    )
    back = await ask(app, "POST", f"{PATH}/greet/labels/production/rollback", {"reason": "worse"})
    assert back["version"] == 1
    shown = await ask(app, "GET", f"{PATH}/{made['id']}")
    assert shown["labels"] == {"production": {"version": 1}, "staging": {"version": 2}}
    events = (await ask(app, "GET", f"{PATH}/greet/events"))["data"]
    assert [(each["kind"], each["reason"]) for each in events][:2] == [
        ("label.rolled_back", "worse"),
        ("label.set", "try it"),
    ]
    assert (await ask(app, "POST", f"{PATH}/greet", {"archived": True}))["archived"] is not None
    assert (await ask(app, "GET", PATH))["data"] == []
    error = await ask(app, "POST", f"{PATH}/greet/versions", {"text": "x"}, status=409)
    assert error["code"] == "prompt_archived"
    assert (await ask(app, "DELETE", f"{PATH}/greet"))["deleted"] is True
    assert (await ask(app, "GET", f"{PATH}/greet", status=404))["code"] == "prompt_not_found"


async def test_versions_come_in_pages_and_as_a_diff(app: RequestLifecycle) -> None:
    await create(app)
    for n in range(3):
        await ask(app, "POST", f"{PATH}/greet/versions", {"text": f"a\nb{n}\nc\n"}, status=201)
    page = await ask(app, "GET", f"{PATH}/greet/versions?limit=3")
    assert ([each["version"] for each in page["data"]], page["has_more"]) == ([4, 3, 2], True)
    rest = await ask(app, "GET", f"{PATH}/greet/versions?after={page['last_id']}")
    assert ([each["version"] for each in rest["data"]], rest["has_more"]) == ([1], False)
    assert (await ask(app, "GET", f"{PATH}/greet/versions/latest"))["version"] == 4
    assert (await ask(app, "GET", f"{PATH}/greet/versions/1"))["messages"] == GREET["messages"]
    diff = await ask(app, "GET", f"{PATH}/greet/diff?from=2&to=3")
    assert diff["changes"] == [{"path": "text", "from": "a\nb0\nc\n", "to": "a\nb1\nc\n"}]
    assert diff["text"] == "--- greet@2\n+++ greet@3\n@@ -1,4 +1,4 @@\n text: |\n   a\n-  b0\n+  b1\n   c\n"
    for path in ("versions/x", "versions/0", "versions?after=x"):
        assert (await ask(app, "GET", f"{PATH}/greet/{path}", status=400))["code"] == "invalid_value"


async def test_rendering_shows_what_a_request_would_be(app: RequestLifecycle) -> None:
    await create(app)
    made = await ask(app, "POST", f"{PATH}/greet/render", {"variables": {"name": "Ann"}}, key=WORKER)
    assert made["messages"][1] == {"role": "user", "content": "Greet Ann"}
    assert (made["version"], made["model"], made["parameters"]) == (1, "chat", {"temperature": 0.5})
    error = await ask(app, "POST", f"{PATH}/greet/render", {"variables": {"nam": "Ann"}}, key=WORKER, status=400)
    assert error["param"] == "variables.name"
    assert "missing 'name'; unknown 'nam'" in error["message"]
    assert (await ask(app, "POST", f"{PATH}/greet/render", {"label": "x"}, status=400))["code"] == "label_not_found"


async def test_keys_read_their_teams_prompts_and_only_admins_write(app: RequestLifecycle) -> None:
    await create(app)
    await create(app, name="blue", teams=["blue"])
    await create(app, name="red", teams=["red"])
    listed = await ask(app, "GET", PATH, key=WORKER)  # of the team red
    assert [each["name"] for each in listed["data"]] == ["greet", "red"]
    assert (await ask(app, "GET", f"{PATH}/blue", key=WORKER, status=404))["code"] == "prompt_not_found"
    for path in ("versions", "versions/1", "labels", "events", "diff?from=1&to=1"):
        await ask(app, "GET", f"{PATH}/blue/{path}", key=WORKER, status=404)
        await ask(app, "GET", f"{PATH}/red/{path}", key=WORKER)
    await ask(app, "POST", f"{PATH}/blue/render", {}, key=WORKER, status=404)
    for method, path, body in (
        ("POST", "", GREET),
        ("POST", "/red", {}),
        ("DELETE", "/red", None),
        ("POST", "/red/versions", {"text": "x"}),
        ("POST", "/red/labels/production", {"version": 1}),
        ("DELETE", "/red/labels/production", None),
        ("POST", "/red/labels/production/rollback", {}),
    ):
        error = await ask(app, method, PATH + path, body, key=WORKER, status=403)
        assert error["code"] == "admin_key_required"


async def test_organisations_are_apart_and_admins_of_the_platform_reach_all(app: RequestLifecycle) -> None:
    await create(app)
    await ask(app, "GET", f"{PATH}/greet", key=STRANGER, status=404)
    await ask(app, "POST", f"{PATH}/greet/versions", {"text": "x"}, key=STRANGER, status=404)
    assert (await ask(app, "GET", f"{PATH}/greet?org=default", key=STRANGER, status=403))["param"] == "org"
    theirs = await ask(app, "POST", f"{PATH}?org=acme", GREET, key=BOSS, status=201)
    assert theirs["org"] == "acme"
    assert (await ask(app, "GET", f"{PATH}/greet", key=STRANGER))["id"] == theirs["id"]
    await ask(app, "DELETE", f"{PATH}/greet?org=acme", key=BOSS)
    await ask(app, "GET", f"{PATH}/greet", key=BOSS)
    assert (await ask(app, "POST", f"{PATH}?org=nothing", GREET, status=404))["code"] == "org_not_found"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"name": "a b"}, "name"),
        ({"name": "a//b"}, "name"),
        ({"messages": None}, None),
        ({"messages": [{"role": "user", "content": "{{ x.y }}"}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": "{% include 'x' %}"}]}, "messages[0].content"),
        ({"variables": {"name": {"type": "text"}}}, "variables.name.type"),
        ({"variables": {"name": {"type": "integer", "default": "a"}}}, "variables.name.default"),
        ({"parameters": {"stream": True}}, "parameters"),
        ({"parameters": {"temperature": "hot"}}, "parameters.temperature"),
        ({"parameters": {"max_tokens": -1}}, "parameters.max_tokens"),
        ({"tools": [1]}, "tools[0]"),
        ({"labels": ["Production"]}, "labels[0]"),
        ({"labels": ["latest"]}, "label"),
        ({"teams": []}, "teams"),
        ({"surprise": 1}, "surprise"),
        ({"message": "a\0"}, "message"),
    ],
)
async def test_what_can_not_be_stored_is_a_400_that_names_it(
    app: RequestLifecycle, body: dict[str, Any], param: str | None
) -> None:
    error = await ask(app, "POST", PATH, {**GREET, **body}, status=400)
    assert (error["type"], error["param"]) == ("invalid_request_error", param)
    assert (await ask(app, "GET", PATH))["data"] == []


@pytest.mark.parametrize(
    ("label", "body", "status", "code"),
    [
        ("production", {"version": 9}, 404, "prompt_version_not_found"),
        ("production", {}, 400, "invalid_value"),
        ("production", {"version": 0}, 400, "invalid_value"),
        ("latest", {"version": 1}, 400, "reserved_label"),
        ("A", {"version": 1}, 400, "invalid_value"),
    ],
)
async def test_a_label_that_can_not_be_set_is_refused(
    app: RequestLifecycle, label: str, body: dict[str, Any], status: int, code: str
) -> None:
    await create(app)
    error = await ask(app, "POST", f"{PATH}/greet/labels/{label}", body, status=status)
    assert error["code"] == code


async def test_versions_are_compared_by_what_their_requests_did(app: RequestLifecycle, database: Database) -> None:
    await create(app)
    await ask(app, "POST", f"{PATH}/greet/versions", {"text": "x"}, status=201)
    split = {"split": [{"version": 1, "weight": 1}, {"version": 2, "weight": 1}]}
    label = await ask(app, "POST", f"{PATH}/greet/labels/production", split)
    records = [
        a_record(
            id=f"req_{version}_{n}",
            prompt="greet",
            prompt_version=str(version),
            prompt_label="production",
            started=label["updated"] + 2 + n,
            ended=label["updated"] + 2 + n + version,
            status="error" if version == 2 and n % 2 else "ok",
        )
        for version in (1, 2)
        for n in range(80)
    ]
    await Ledger(database).insert(records)
    given = [("thumbs", f"req_{version}_{n}", float(version == 2)) for version in (1, 2) for n in range(20)]
    for name, request, value in given:
        mine = {"org": "default", "team": records[0].team, "key": "key_1", "request": request, "name": name}
        score = Score(id=new_id(), kind="boolean", value=value, created=1.0, updated=1.0, **mine)
        await ScoreStore(database).put(score)
    found = await ask(app, "GET", f"{PATH}/greet/compare?label=production")
    await ask(app, "GET", f"{PATH}/greet/compare?label=production", key=WORKER, status=403)
    assert (found["object"], found["verdict"]) == ("prompt.comparison", "worse")
    assert (found["baseline"], found["candidate"]) == (
        {"version": 1, "requests": 80, "errors": 0},
        {"version": 2, "requests": 80, "errors": 40},
    )
    measures = {each["name"]: each for each in found["measures"]}
    assert measures["error_rate"]["candidate"]["value"] == 0.5
    assert (measures["latency_p50"]["verdict"], measures["cost"]["verdict"]) == ("worse", "unclear")
    assert (measures["score.thumbs"]["verdict"], measures["score.thumbs"]["candidate"]["value"]) == ("better", 1)
    back = await ask(app, "GET", f"{PATH}/greet/compare?baseline=2&candidate=1")
    assert {each["name"]: each["verdict"] for each in back["measures"]}["error_rate"] == "better"
    early = await ask(app, "GET", f"{PATH}/greet/compare?baseline=2&candidate=1&end={label['updated']}")
    assert (early["verdict"], early["candidate"]["requests"]) == ("unclear", 0)
    assert (await ask(app, "GET", f"{PATH}/greet/compare?baseline=1", status=400))["param"] == "candidate"
    assert (await ask(app, "GET", f"{PATH}/greet/compare?baseline=1&candidate=7", status=404))["param"] == "version"


async def test_captured_answers_are_compared_by_the_schemas_of_their_versions(
    app: RequestLifecycle, database: Database
) -> None:
    schema = {"type": "object", "required": ["city"]}
    spec = {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}}
    await create(app)
    for text in ("two", "three"):
        await ask(app, "POST", f"{PATH}/greet/versions", {"text": text, **spec}, status=201)
    captured = []
    for version in (1, 2, 3):
        for n in range(40):
            record = a_record(id=f"req_{version}_{n}", prompt="greet", prompt_version=str(version), content="full")
            text = "{}" if version == 3 and n % 2 else '{"city": "Bern"}'
            answer = [{"index": 0, "message": {"content": text}, "finish_reason": "stop"}]
            content = Content(level="full", output=json.dumps(answer).encode(), is_output_cut=n == 0)
            content.redacted = {"email": 1} if n == 1 else {}
            captured.append((record, content))
    await Ledger(database).insert([record for record, _ in captured])
    await ContentStore(database).insert(captured)
    found = await ask(app, "GET", f"{PATH}/greet/compare?baseline=2&candidate=3")
    measure = {each["name"]: each for each in found["measures"]}["schema_validity"]
    assert (measure["baseline"]["value"], measure["candidate"]["value"], measure["verdict"]) == (1, 0.5, "worse")
    without = await ask(app, "GET", f"{PATH}/greet/compare?baseline=1&candidate=1")
    assert "schema_validity" not in {each["name"] for each in without["measures"]}


async def test_a_misspelt_filter_is_refused(app: RequestLifecycle) -> None:
    assert (await ask(app, "GET", f"{PATH}?nam=x", key=WORKER, status=400))["code"] == "unknown_parameter"


@pytest.mark.parametrize("value", ["NaN", "1e999", '"\\u0000"', '"\\ud800"'])
async def test_what_no_database_stores_is_a_400(app: RequestLifecycle, value: str) -> None:
    variables = '{"v": {"type": "array", "default": [' + value + "]}}"
    body = '{"name": "a", "text": "x", "variables": ' + variables + "}"
    answer = await Client(app, key=BOSS).post(PATH, body.encode(), headers=[("content-type", "application/json")])
    assert (answer.status, answer.error["type"]) == (400, "invalid_request_error")


async def test_a_body_of_another_type_is_a_400(app: RequestLifecycle) -> None:
    answer = await Client(app, key=BOSS).post(PATH, b"[]", headers=[("content-type", "application/json")])
    assert answer.status == 400
