"""Rerank in the forms of its clients, moderations under OpenAI's SDK with strict validation, and what is not served."""

from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest
from tests.contract.platform import NARROW, USER, Platform

QUERY = "a fast red car"
DOCUMENTS = ["green tea from Japan", "this red car is fast", "a slow boat"]


@pytest.fixture
def http(platform: Platform) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=platform.gateway.url, headers={"authorization": f"Bearer {USER}"}, timeout=20) as made:
        yield made


@pytest.mark.parametrize("path", ["/rerank", "/v1/rerank", "/v2/rerank"])
def test_documents_are_ranked_and_counted(http: httpx.Client, platform: Platform, path: str) -> None:
    body = {"model": "org/emb", "query": QUERY, "documents": DOCUMENTS, "top_n": 2}
    answer = http.post(path, json=body)
    found = answer.json()
    assert (answer.status_code, found["results"][0]["index"], len(found["results"])) == (200, 1, 2)
    record = platform.record(answer.headers["x-request-id"])
    assert (record.operation, record.status) == ("score", "ok")
    assert record.input_tokens == found["usage"]["total_tokens"] > 0


def test_the_engine_itself_ranks_the_same(http: httpx.Client, platform: Platform) -> None:
    body = {"model": "org/emb", "query": QUERY, "documents": DOCUMENTS}
    ours = http.post("/v1/rerank", json=body).json()
    engines = httpx.post(platform.simulator.url + "/v1/rerank", json=body).json()
    assert ours["results"] == engines["results"]


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"model": "chat", "query": "q", "documents": ["a"]}, 400, "unsupported_model"),
        ({"model": "nothing", "query": "q", "documents": ["a"]}, 404, "model_not_found"),
        ({"query": "q", "documents": ["a"]}, 400, "missing_required_parameter"),
    ],
)
def test_a_request_that_can_not_be_ranked_says_why(
    http: httpx.Client, body: dict[str, Any], status: int, code: str
) -> None:
    answer = http.post("/v1/rerank", json=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)


def test_a_text_is_moderated(client: openai.OpenAI) -> None:
    harmless = client.moderations.create(input="I want a cup of tea")
    assert (harmless.results[0].flagged, harmless.model) == (False, "org/emb")
    answer = client.moderations.create(model="omni-moderation-latest", input=["tea", "I will kill you with a bomb"])
    assert [each.flagged for each in answer.results] == [False, True]
    (_, harmful) = answer.results
    assert harmful.categories.violence and not harmful.categories.hate
    assert harmful.category_scores.violence > 0.5 and harmful.category_scores.hate == 0
    assert harmful.category_applied_input_types.violence == ["text"]
    assert harmful.category_applied_input_types.hate == []
    assert answer.id.startswith("modr-")


def test_content_parts_are_one_input_and_images_are_refused(client: openai.OpenAI) -> None:
    answer = client.moderations.create(input=[{"type": "text", "text": "tea"}, {"type": "text", "text": "a bomb"}])
    assert [each.flagged for each in answer.results] == [True]
    with pytest.raises(openai.BadRequestError) as raised:
        client.moderations.create(
            input=[{"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}]
        )
    assert (raised.value.code, raised.value.param) == ("image_moderation_not_supported", "input[0]")


@pytest.mark.parametrize("given", [[], [1], ["a", {"type": "text", "text": "b"}], {"a": 1}])
def test_another_input_is_a_400(http: httpx.Client, given: Any) -> None:
    answer = http.post("/v1/moderations", json={"input": given})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"].startswith("input")


def test_a_model_that_does_not_moderate_is_not_found(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as raised:
        client.moderations.create(input="x", model="chat")
    assert raised.value.code == "model_not_found"


@pytest.mark.filterwarnings("ignore::DeprecationWarning:tests")
def test_what_is_not_served_says_so_with_an_sdk(client: openai.OpenAI) -> None:
    calls = (
        lambda: client.images.create_variation(model="dall-e-2", image=("a.png", b"x" * 2_000_000)),
        lambda: client.videos.create(model="sora-2", prompt="a ship"),
    )
    for call in calls:
        with pytest.raises(openai.APIStatusError) as raised:
            call()
        assert (raised.value.status_code, raised.value.code) == (501, "not_served")
        assert raised.value.response.headers["x-should-retry"] == "false"


def test_a_websocket_is_refused_with_the_reason(http: httpx.Client) -> None:
    upgrade = {"connection": "upgrade", "upgrade": "websocket", "sec-websocket-version": "13"}
    answer = http.get("/v1/realtime?model=chat", headers={**upgrade, "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ=="})
    assert (answer.status_code, answer.json()["error"]["code"]) == (501, "not_served")
    assert httpx.get(str(http.base_url) + "/v1/realtime").status_code == 401


def test_a_key_that_may_not_use_the_model_is_refused(platform: Platform) -> None:
    with platform.client(NARROW) as narrow:
        assert narrow.moderations.create(input="tea").results
