"""Admins see the requests of their organisation, with their content, and nobody else does."""

from decimal import Decimal
from typing import Any

import pytest
from tests.gateway.routes.admin_api import BOSS, STRANGER, WORKER, ask
from tests.records import a_record

from quarterdeck.content import Content
from quarterdeck.gateway.http.request_lifecycle import RequestLifecycle
from quarterdeck.record import RequestRecord
from quarterdeck.store.contents import ContentStore
from quarterdeck.store.database import Database
from quarterdeck.store.ledger import Ledger

PATH = "/admin/requests"
CONTENT = Content(
    level="full",
    input=b'{"messages":[{"role":"user","content":"Where is Paris?"}]}',
    output=b'[{"index":0,"message":{"role":"assistant","content":"In France."},"finish_reason":"stop"}]',
    input_bytes=60,
    output_bytes=90,
    redacted={"email": 1},
)


@pytest.fixture
async def records(database: Database) -> list[RequestRecord]:
    made = [
        a_record(started=float(n), user="u" if n % 2 else None, content="full", cost=Decimal(n) / 1000)
        for n in range(5)
    ]
    await Ledger(database).insert([*made, a_record(org="acme", started=99.0, user="u")])
    await ContentStore(database).insert([(made[4], CONTENT), (made[3], CONTENT)])
    return made


async def listed(app: RequestLifecycle, query: str = "", key: str = BOSS) -> list[dict[str, Any]]:
    return list((await ask(app, "GET", f"{PATH}?{query}", key=key))["data"])


async def test_requests_are_listed_newest_first(app: RequestLifecycle, records: list[RequestRecord]) -> None:
    page = await ask(app, "GET", f"{PATH}?limit=2")
    assert [each["id"] for each in page["data"]] == [records[4].id, records[3].id]
    assert (page["object"], page["has_more"], page["first_id"], page["last_id"]) == (
        "list",
        True,
        records[4].id,
        records[3].id,
    )
    first = page["data"][0]
    assert (first["object"], first["cost"], first["content"], first["status"]) == ("request", "0.004", "full", "ok")
    assert "input" not in first
    rest = await ask(app, "GET", f"{PATH}?limit=3&after={page['last_id']}")
    assert ([each["id"] for each in rest["data"]], rest["has_more"]) == (
        [record.id for record in records[2::-1]],
        False,
    )


async def test_filters_combine(app: RequestLifecycle, records: list[RequestRecord]) -> None:
    assert [each["id"] for each in await listed(app, "user=u&min_cost=0.002&end=4")] == [records[3].id]
    assert [each["id"] for each in await listed(app, "text=in+france")] == [records[4].id, records[3].id]
    assert await listed(app, "failed=true") == []


async def test_a_list_has_the_content_where_it_is_asked_for(
    app: RequestLifecycle, records: list[RequestRecord]
) -> None:
    found = await listed(app, "content=true")
    assert found[0]["input"]["messages"][0]["content"] == "Where is Paris?"
    assert found[4]["output"] is None


async def test_one_request_has_its_attempts_and_content(app: RequestLifecycle, records: list[RequestRecord]) -> None:
    found = await ask(app, "GET", f"{PATH}/{records[4].id}")
    assert found["output"][0]["message"]["content"] == "In France."
    assert found["content_details"]["redacted"] == {"email": 1}
    assert [attempt["endpoint"] for attempt in found["attempts"]] == ["smollm2#0", "smollm2#1"]
    assert found["parameters"]["max_tokens"] == 64
    assert (await ask(app, "GET", f"{PATH}/{records[0].id}"))["input"] is None


async def test_another_organisation_sees_only_its_own(app: RequestLifecycle, records: list[RequestRecord]) -> None:
    assert [each["org"] for each in await listed(app, key=STRANGER)] == ["acme"]
    error = await ask(app, "GET", f"{PATH}/{records[0].id}", key=STRANGER, status=404)
    assert error["code"] == "request_not_found"
    assert (await ask(app, "GET", f"{PATH}?after={records[0].id}", key=STRANGER, status=404))["param"] == "after"


@pytest.mark.parametrize("path", [PATH, f"{PATH}/req_1", f"{PATH}/tail"])
async def test_a_key_that_is_no_admin_sees_nothing(app: RequestLifecycle, path: str) -> None:
    assert (await ask(app, "GET", path, key=WORKER, status=403))["code"] == "admin_key_required"


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("status=great", "status"),
        ("limit=101", "limit"),
        ("text=a", "text"),
        ("min_cost=-1", "min_cost"),
        ("min_cost=NaN", "min_cost"),
        ("start=x", "start"),
        ("usr=u", "usr"),
    ],
)
async def test_a_wrong_filter_is_a_400_that_names_it(app: RequestLifecycle, query: str, param: str) -> None:
    assert (await ask(app, "GET", f"{PATH}?{query}", status=400))["param"] == param


async def test_contents_are_deleted_and_records_stay(
    app: RequestLifecycle, records: list[RequestRecord], database: Database
) -> None:
    deleted = await ask(app, "DELETE", f"/admin/contents?request={records[4].id}")
    assert deleted == {"object": "content.deletion", "by": "request", "value": records[4].id, "deleted": 1}
    assert (await ask(app, "DELETE", "/admin/contents?user=u"))["deleted"] == 1
    assert (await ask(app, "GET", f"{PATH}/{records[4].id}"))["input"] is None
    assert len(await listed(app)) == 5


async def test_a_deletion_needs_exactly_one_of_its_parameters(app: RequestLifecycle) -> None:
    for query in ("", "?user=u&session=s", "?user="):
        error = await ask(app, "DELETE", f"/admin/contents{query}", status=400)
        assert error["code"] == "invalid_value"


async def test_another_organisations_contents_cannot_be_deleted(
    app: RequestLifecycle, records: list[RequestRecord], database: Database
) -> None:
    assert (await ask(app, "DELETE", f"/admin/contents?request={records[4].id}", key=STRANGER))["deleted"] == 0
    assert (await ask(app, "DELETE", "/admin/contents?user=u", key=STRANGER))["deleted"] == 0
    assert await ContentStore(database).count(org="default") == 2
