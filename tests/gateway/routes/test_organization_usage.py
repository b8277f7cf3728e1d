"""OpenAI's usage API over the ledger, read by OpenAI's own client."""

from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import httpx
import openai
import pytest
from tests.gateway.fakes import USER, Client, parts
from tests.records import a_record

from quarterdeck.gateway.app import create_app
from quarterdeck.gateway.http.request_lifecycle import RequestLifecycle
from quarterdeck.store.database import Database
from quarterdeck.store.keys import KeyStore
from quarterdeck.store.ledger import Ledger
from quarterdeck.store.usage_rollups import Rollups

BOSS = "sk-qd-boss"
DAY = 86_400
START = 20_000 * DAY
MEDIA = START + 5 * DAY
"""The day of audio and images."""
COMPLETIONS = "/v1/organization/usage/completions"


@pytest.fixture(params=["ledger", "roll-ups"])
async def app(database: Database, request: pytest.FixtureRequest) -> RequestLifecycle:
    store = KeyStore(database)
    await store.create(secret=BOSS, name="boss", is_admin=True)
    tokens = {"input_tokens": 30, "cached_tokens": 10, "output_tokens": 5}
    free = {"cost": Decimal(0)}
    made = [
        a_record(team="red", key="key_a", model="m", started=START + 10.0, cost=Decimal("0.1"), user="ann", **tokens),
        a_record(team="red", key="key_b", model="n", started=START + 20.0, cost=Decimal("0.2"), user="bob", **tokens),
        a_record(team="blue", key="key_c", model="m", started=START + DAY + 1.0, cost=Decimal("0.000001"), **tokens),
        a_record(team="red", model="e", operation="embeddings", started=START + 5.0, cost=Decimal(1), **tokens),
        a_record(org="acme", started=START + 5.0, cost=Decimal(9)),
        *(
            a_record(team="red", model="whisper", operation=f"audio_{name}", started=MEDIA + 7.0, **free, audio_ms=1501)
            for name in ("transcriptions", "translations")
        ),
        a_record(team="red", model="tts", operation="audio_speech", started=MEDIA + 8.0, characters=70, **free),
        a_record(team="blue", model="painter", operation="images_edits", started=MEDIA + 9.0, images=3, **free),
    ]
    await Ledger(database, clock=lambda: 0.0).insert(made)
    if request.param == "roll-ups":
        rollups = Rollups(database)
        while await rollups.advance("default", START + 9.0 * DAY):
            pass
    return create_app(parts(keys=store, database=database))


@pytest.fixture
async def admin(app: RequestLifecycle) -> AsyncIterator[openai.AsyncOpenAI]:
    transport = httpx.ASGITransport(app=app)  # type: ignore[arg-type]  # it is an ASGI app
    async with (
        httpx.AsyncClient(transport=transport) as http,
        openai.AsyncOpenAI(
            base_url="http://gateway/v1",
            api_key="unused",
            admin_api_key=BOSS,
            http_client=http,
            _strict_response_validation=True,
        ) as client,
    ):
        yield client


async def test_completions_by_day_project_and_model(admin: openai.AsyncOpenAI) -> None:
    page = await admin.admin.organization.usage.completions(
        start_time=START, end_time=START + 3 * DAY, group_by=["project_id", "model"]
    )
    assert (page.object, page.has_more, page.next_page) == ("page", False, None)
    assert [bucket.start_time for bucket in page.data] == [START, START + DAY, START + 2 * DAY]
    first = [(each.project_id, each.model, each.num_model_requests) for each in _completions(page.data[0])]
    assert first == [("red", "m", 1), ("red", "n", 1)]
    (one,) = _completions(page.data[1])
    assert (one.input_tokens, one.input_cached_tokens, one.output_tokens, one.user_id) == (30, 10, 5, None)
    assert page.data[2].results == []


def _completions(bucket: Any) -> list[Any]:
    assert all(each.object == "organization.usage.completions.result" for each in bucket.results)
    return list(bucket.results)


async def test_pages_follow_each_other(admin: openai.AsyncOpenAI) -> None:
    page = await admin.admin.organization.usage.completions(start_time=START, end_time=START + 2 * DAY, limit=1)
    assert page.has_more and len(page.data) == 1
    rest = await admin.admin.organization.usage.completions(
        start_time=START, end_time=START + 2 * DAY, limit=1, page=str(page.next_page)
    )
    assert not rest.has_more and rest.data[0].start_time == START + DAY


async def test_filters_take_several_values(admin: openai.AsyncOpenAI) -> None:
    found = await admin.admin.organization.usage.completions(
        start_time=START, end_time=START + DAY, api_key_ids=["key_a", "key_b"], models=["n", "x"], group_by=["user_id"]
    )
    assert [(each.user_id, each.num_model_requests) for each in _completions(found.data[0])] == [("bob", 1)]


async def test_embeddings_and_kinds_that_are_not_served(admin: openai.AsyncOpenAI) -> None:
    usage = admin.admin.organization.usage
    page = await usage.embeddings(start_time=START, end_time=START + DAY)
    (one,) = page.data[0].results
    assert one.object == "organization.usage.embeddings.result" and one.input_tokens == 30
    assert (await usage.moderations(start_time=START, end_time=START + DAY)).data[0].results == []


async def test_audio_and_images_have_their_own_counts(admin: openai.AsyncOpenAI) -> None:
    usage, day = admin.admin.organization.usage, {"start_time": MEDIA, "end_time": MEDIA + DAY}
    (heard,) = (await usage.audio_transcriptions(**day)).data[0].results
    assert heard.object == "organization.usage.audio_transcriptions.result"
    assert (heard.seconds, heard.num_model_requests) == (4, 2)
    (spoken,) = (await usage.audio_speeches(**day, group_by=["model"])).data[0].results
    assert spoken.object == "organization.usage.audio_speeches.result"
    assert (spoken.characters, spoken.model) == (70, "tts")
    groups = {"sizes": ["256x256"], "sources": ["image.generation"], "group_by": ["size", "source", "project_id"]}
    (painted,) = (await usage.images(**day, **groups)).data[0].results
    assert painted.object == "organization.usage.images.result"
    assert (painted.images, painted.project_id, painted.size) == (3, "blue", None)


async def test_every_filter_and_group_of_the_sdk_is_known(admin: openai.AsyncOpenAI) -> None:
    usage, day = admin.admin.organization.usage, {"start_time": START, "end_time": START + DAY}
    for page in (
        await usage.web_search_calls(**day, context_levels=["low"], group_by=["context_level"]),
        await usage.file_search_calls(**day, vector_store_ids=["vs_1"], group_by=["vector_store_id"]),
        await usage.decisions(**day, batch=False),
        await usage.completions(**day, batch=True),
    ):
        assert page.data[0].results == []
    costs = await usage.costs(**day, line_items=["n", "x"])
    assert [each.amount.value for each in costs.data[0].results] == [0.2]  # type: ignore[union-attr]


async def test_costs_are_exact(admin: openai.AsyncOpenAI, app: RequestLifecycle) -> None:
    page = await admin.admin.organization.usage.costs(
        start_time=START, end_time=START + 2 * DAY, group_by=["line_item"]
    )
    amounts = [{each.line_item: each.amount.value for each in bucket.results} for bucket in page.data]  # type: ignore[union-attr]
    assert amounts == [{"m": 0.1, "n": 0.2, "e": 1.0}, {"m": 1e-06}]
    plain = await Client(app, key=BOSS).get(
        f"/v1/organization/costs?start_time={START + DAY}&end_time={START + 2 * DAY}"
    )
    assert b'"value":0.000001,' in plain.body, "every digit, not as a float"


@pytest.mark.parametrize(
    ("path", "param"),
    [
        (COMPLETIONS, "start_time"),
        (f"{COMPLETIONS}?start_time=x", "start_time"),
        (f"{COMPLETIONS}?start_time=5&bucket_width=1w", "bucket_width"),
        (f"{COMPLETIONS}?start_time=5&end_time=4", "end_time"),
        (f"{COMPLETIONS}?start_time=5&group_by=colour", "group_by"),
        (f"{COMPLETIONS}?start_time=5&limit=99", "limit"),
        (f"{COMPLETIONS}?start_time=5&projects=red", "projects"),
        (f"{COMPLETIONS}?start_time=5&sizes[]=256x256", "sizes"),
        (f"{COMPLETIONS}?start_time=5&group_by=size", "group_by"),
        ("/v1/organization/costs?start_time=5&bucket_width=1h", "bucket_width"),
    ],
)
async def test_bad_queries_name_their_parameter(app: RequestLifecycle, path: str, param: str) -> None:
    refused = await Client(app, key=BOSS).get(path)
    assert (refused.status, refused.json["error"]["param"]) == (400, param)


async def test_only_admins_may_and_unknown_kinds_are_404(app: RequestLifecycle) -> None:
    assert (await Client(app, key=USER).get(f"{COMPLETIONS}?start_time=5")).status in (401, 403)
    assert (await Client(app, key=BOSS).get("/v1/organization/usage/dreams?start_time=5")).status == 404
