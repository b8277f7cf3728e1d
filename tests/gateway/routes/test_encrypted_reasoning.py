"""Reasoning of answers that are not stored: clients keep it encrypted, and the model reads it in the next turn."""

import json
from typing import Any

import msgspec
import pytest
from tests.gateway.fakes import Client, FakePipeline, parts

from quarterdeck.gateway.app import create_app
from quarterdeck.inference.call import Reply
from quarterdeck.store.database import Database

JSON = ((b"content-type", b"application/json"),)
MESSAGE = {"role": "assistant", "content": "Hello", "reasoning": "They greet. 😀"}
WHOLE = msgspec.json.encode(
    {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "model": "chat",
        "choices": [{"index": 0, "message": MESSAGE, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
    }
)
ASK = {"model": "chat", "input": "Hi", "store": False, "include": ["reasoning.encrypted_content"]}


@pytest.fixture
def pipeline() -> FakePipeline:
    made = FakePipeline()
    made.answer = Reply(200, JSON, WHOLE)
    return made


async def reasoning_of(client: Client, **members: Any) -> dict[str, Any]:
    answer = await client.post("/v1/responses", {**ASK, **members})
    assert answer.status == 200, answer.body
    item: dict[str, Any] = json.loads(answer.body)["output"][0]
    assert item["type"] == "reasoning"
    return item


def read_by_the_model(pipeline: FakePipeline) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(pipeline.calls[-1][1])["messages"]
    return found


async def test_reasoning_that_a_client_sends_back_encrypted_is_read_by_the_model(
    pipeline: FakePipeline, database: Database
) -> None:
    client = Client(create_app(parts(pipeline, database=database)))
    item = await reasoning_of(client)
    assert item["content"] == [{"type": "reasoning_text", "text": "They greet. 😀"}]
    assert "greet" not in item["encrypted_content"]
    kept = {"type": "reasoning", "id": item["id"], "summary": [], "encrypted_content": item["encrypted_content"]}
    said = {"role": "assistant", "content": "Hello"}
    await client.post("/v1/responses", {**ASK, "input": [{"role": "user", "content": "Hi"}, kept, said]})
    assert read_by_the_model(pipeline)[1] == {**said, "reasoning": "They greet. 😀"}


async def test_it_is_made_where_it_is_asked_for_and_nothing_is_stored(
    pipeline: FakePipeline, database: Database
) -> None:
    client = Client(create_app(parts(pipeline, database=database)))
    assert "encrypted_content" not in await reasoning_of(client, include=[])
    assert "encrypted_content" not in await reasoning_of(client, store=True)


async def test_what_was_encrypted_elsewhere_is_left_out(pipeline: FakePipeline, database: Database) -> None:
    client = Client(create_app(parts(pipeline, database=database)))
    given = [
        {"role": "user", "content": "Hi"},
        {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "gAAAA-of-another"},
        {"role": "assistant", "content": "Hello"},
    ]
    assert (await client.post("/v1/responses", {**ASK, "input": given})).status == 200
    assert read_by_the_model(pipeline)[1:] == [{"role": "assistant", "content": "Hello"}]
