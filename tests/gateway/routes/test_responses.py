"""Responses over HTTP with a fake pipeline: what happens when the database, the engine or the gateway fails."""

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import msgspec
import pytest
from tests.gateway.fakes import (
    USER,
    Answer,
    Client,
    FakeKeyStore,
    FakePipeline,
    FakeStream,
    key_row,
    parts,
    responses_of,
)

from quarterdeck.accounting.principal import Principal
from quarterdeck.errors import BadRequestError, EngineError, RateLimitError
from quarterdeck.gateway.app import create_app
from quarterdeck.inference.call import Head, Operation, Reply
from quarterdeck.protocol import sse
from quarterdeck.resources.responses import service
from quarterdeck.resources.tenancy.principals import principal_of
from quarterdeck.settings.loading import parse
from quarterdeck.store.conversations import ConversationStore
from quarterdeck.store.database import Database, DatabaseUnavailableError
from quarterdeck.store.ownership import Owner
from quarterdeck.store.responses import ResponseStore

TEAM = Owner("default", "default", "key_user")
JSON = ((b"content-type", b"application/json"),)
USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
WHOLE = msgspec.json.encode(
    {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "model": "chat",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hello"}, "finish_reason": "stop"}],
        "usage": USAGE,
    }
)
ASK = {"model": "chat", "input": "Hi"}
CONTENT_TYPE = (("content-type", "application/json"),)


def chunk(content: str = "", finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": {"content": content}, "finish_reason": finish}
    return sse.event({"id": "chatcmpl-1", "model": "chat", "choices": [choice]})


def a_stream(*pieces: bytes, hangs: bool = False) -> Reply:
    return Reply(200, sse.HEADERS, stream=FakeStream(pieces, hangs=hangs))


def events_of(answer: Answer) -> list[dict[str, Any]]:
    lines = answer.body.decode().splitlines()
    return [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: ")]


@pytest.fixture
def pipeline() -> FakePipeline:
    made = FakePipeline()
    made.answer = Reply(200, JSON, WHOLE)
    return made


@pytest.fixture
def client(pipeline: FakePipeline, database: Database) -> Client:
    return Client(create_app(parts(pipeline, database=database)))


@pytest.fixture
async def without_database(pipeline: FakePipeline) -> AsyncIterator[Client]:
    earlier = set(threading.enumerate())
    yield Client(create_app(parts(pipeline)))
    for thread in set(threading.enumerate()) - earlier:
        if "_connection_worker_thread" in thread.name:  # aiosqlite's, which needs the loop until it ends
            thread.join(60)


async def eventually(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(20):
        while not await condition():  # noqa: ASYNC110  # a row has no event
            await asyncio.sleep(0.01)


async def test_a_response_is_a_chat_completion_with_the_response_as_parent(
    client: Client, pipeline: FakePipeline
) -> None:
    answer = await client.post("/v1/responses", {**ASK, "instructions": "Be brief."})
    assert answer.json["output"][0]["content"][0]["text"] == "Hello"
    ((head, body),) = pipeline.calls
    assert (head.operation, head.parent) == (Operation.CHAT, answer.json["id"])
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    assert json.loads(body) == {"model": "chat", "messages": messages}


async def test_headers_of_the_chat_completion_reach_the_client(client: Client, pipeline: FakePipeline) -> None:
    pipeline.answer = Reply(200, (*JSON, (b"x-ratelimit-remaining-requests", b"5")), WHOLE)
    assert (await client.post("/v1/responses", ASK)).headers["x-ratelimit-remaining-requests"] == "5"


async def test_without_a_database_what_is_stored_is_refused_before_an_engine_is_called(
    without_database: Client, pipeline: FakePipeline
) -> None:
    for more in ({}, {"stream": True}, {"store": False, "previous_response_id": "resp_1"}, {"conversation": "conv_1"}):
        answer = await without_database.post("/v1/responses", {**ASK, **more})
        assert (answer.status, answer.error["code"]) == (503, "database_unavailable")
    for method, path in (
        ("GET", "/v1/responses/resp_1"),
        ("DELETE", "/v1/responses/resp_1"),
        ("GET", "/v1/responses/resp_1/input_items"),
        ("GET", "/v1/conversations/conv_1"),
    ):
        assert (await without_database.request(method, path)).status == 503
    assert pipeline.calls == []


async def test_without_a_database_what_is_not_stored_goes_on(without_database: Client, pipeline: FakePipeline) -> None:
    assert (await without_database.post("/v1/responses", {**ASK, "store": False})).json["status"] == "completed"
    pipeline.answer = a_stream(chunk("Hello"), chunk(finish="stop"), sse.DONE)
    streamed = await without_database.post("/v1/responses", {**ASK, "store": False, "stream": True})
    assert events_of(streamed)[-1]["type"] == "response.completed"


async def test_a_refusal_stores_nothing_and_keeps_its_status(
    client: Client, pipeline: FakePipeline, database: Database
) -> None:
    pipeline.answer = RateLimitError("Slow down.")
    assert (await client.post("/v1/responses", {**ASK, "stream": True})).status == 429
    async with database.connect() as connection:
        assert (await connection.exec_driver_sql("SELECT count(*) FROM responses")).scalar() == 0


async def test_parameters_in_errors_have_their_names_of_here(client: Client, pipeline: FakePipeline) -> None:
    pipeline.answer = BadRequestError("Too many.", param="max_completion_tokens")
    assert (await client.post("/v1/responses", ASK)).error["param"] == "max_output_tokens"


async def test_a_stream_that_breaks_off_is_a_failed_response(client: Client, pipeline: FakePipeline) -> None:
    broken = FakeStream([chunk("Hel"), sse.error_event(EngineError("It broke."))])
    broken.error = EngineError("It broke.")  # type: ignore[attr-defined]
    pipeline.answer = Reply(200, sse.HEADERS, stream=broken)
    answer = await client.post("/v1/responses", {**ASK, "stream": True})
    failed = events_of(answer)[-1]
    assert [event["type"] for event in events_of(answer)][-2:] == ["error", "response.failed"]
    stored = await client.get(f"/v1/responses/{failed['response']['id']}")
    assert stored.json == failed["response"]
    assert stored.json["output"][0]["content"][0]["text"] == "Hel"
    again = await client.get(f"/v1/responses/{failed['response']['id']}?stream=true")
    assert again.body == answer.body


async def test_an_engine_that_answers_a_stream_with_a_whole_body_is_streamed(client: Client) -> None:
    answer = await client.post("/v1/responses", {**ASK, "stream": True})
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert events_of(answer)[-1]["response"]["output"][0]["content"][0]["text"] == "Hello"


async def test_a_client_that_hangs_up_leaves_a_cancelled_response(
    client: Client, pipeline: FakePipeline, database: Database
) -> None:
    pipeline.answer = a_stream(chunk("Hel"), hangs=True)
    task = asyncio.create_task(client.post("/v1/responses", {**ASK, "stream": True}))
    await pipeline.was_called.wait()
    await asyncio.sleep(0)
    store = ResponseStore(database)
    found: list[str] = []

    async def has_begun() -> bool:
        async with database.connect() as connection:
            rows = await connection.exec_driver_sql("SELECT id FROM responses")
            found.extend(row[0] for row in rows)
        return bool(found)

    await eventually(has_begun)
    client.gone.set()
    await task

    async def is_cancelled() -> bool:
        return str((await store.retrieve(found[0], TEAM)).body["status"]) == "cancelled"

    await eventually(is_cancelled)


async def test_a_response_whose_gateway_died_is_incomplete_with_a_reason(
    client: Client, pipeline: FakePipeline, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "LEASE_SECONDS", -1.0)  # as if it had ended
    pipeline.answer = a_stream(chunk("Hel"), hangs=True)
    head = Head("req_1", Operation.CHAT, _principal(), time.time())
    made = responses_of(pipeline, database, lambda work: work.close())
    reply = await made.create(head, msgspec.json.encode({**ASK, "stream": True}))
    assert reply.stream is not None  # and never read: the process is gone
    parent = pipeline.calls[0][0].parent
    answer = await client.get(f"/v1/responses/{parent}")
    assert answer.json["status"] == "incomplete"
    assert answer.json["error"]["message"] == "The gateway stopped before the response was complete."
    again = events_of(await client.get(f"/v1/responses/{parent}?stream=true"))
    assert [event["type"] for event in again] == ["response.created", "response.in_progress", "response.incomplete"]


async def test_a_response_that_ends_while_the_database_is_away_is_stored_later(
    pipeline: FakePipeline, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "SAVE_RETRY_SECONDS", 0.0)
    store = ResponseStore(database)
    create, failures = store.create, [DatabaseUnavailableError("away"), DatabaseUnavailableError("away")]

    async def create_later(*values: Any) -> None:
        if failures:
            raise failures.pop()
        await create(*values)

    monkeypatch.setattr(store, "create", create_later)
    tasks: list[asyncio.Task[None]] = []
    made = responses_of(pipeline, database, store=store, spawn=lambda work: tasks.append(asyncio.create_task(work)))
    reply = await made.create(Head("req_1", Operation.CHAT, _principal(), time.time()), msgspec.json.encode(ASK))
    answered = json.loads(reply.body)
    await asyncio.gather(*tasks)
    assert (await store.retrieve(answered["id"], TEAM)).body == answered


async def test_a_conversation_gets_its_items_once_although_the_database_was_away_between(
    pipeline: FakePipeline, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "SAVE_RETRY_SECONDS", 0.0)
    store, conversations = ResponseStore(database), ConversationStore(database)
    conversation = await conversations.create(TEAM, {}, [])
    append, failures = conversations.append, [DatabaseUnavailableError("away")]

    async def append_later(*values: Any, **more: Any) -> None:
        if failures:
            raise failures.pop()
        await append(*values, **more)

    monkeypatch.setattr(conversations, "append", append_later)
    tasks: list[asyncio.Task[None]] = []
    made = responses_of(
        pipeline,
        database,
        store=store,
        conversations=conversations,
        spawn=lambda work: tasks.append(asyncio.create_task(work)),
    )
    asked = msgspec.json.encode({**ASK, "conversation": conversation.id})
    reply = await made.create(Head("req_1", Operation.CHAT, _principal(), time.time()), asked)
    await asyncio.gather(*tasks)
    answered = json.loads(reply.body)
    assert (await store.retrieve(answered["id"], TEAM)).body == answered
    roles = [item["role"] for item in await conversations.items(conversation.id, TEAM)]
    assert roles == ["user", "assistant"]


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("stream=yes", "stream"),
        ("starting_after=1", "starting_after"),
        ("stream=true&starting_after=-1", "starting_after"),
        ("what=1", "what"),
        ("include[]=all", "include[0]"),
    ],
)
async def test_a_query_that_means_nothing_is_refused(client: Client, query: str, param: str) -> None:
    answer = await client.get(f"/v1/responses/resp_1?{query}")
    assert (answer.status, answer.error["param"]) == (400, param)


async def test_ids_with_nul_are_not_found(client: Client) -> None:
    for body in ({"previous_response_id": "a\0b"}, {"conversation": "a\0b"}):
        assert (await client.post("/v1/responses", {**ASK, **body})).status == 404
    reference = [{"type": "item_reference", "id": "a\0b"}]
    assert (await client.post("/v1/responses", {**ASK, "input": reference})).status == 404
    message = {"role": "user", "content": "nul \0 here", "id": "a\0b"}
    assert (await client.post("/v1/responses", {**ASK, "input": [message]})).status == 400
    del message["id"]
    asked = {**ASK, "input": [message], "user": "a\0b", "metadata": {"session_id": "s\0"}}
    assert (await client.post("/v1/responses", asked)).status == 200


def _principal() -> Principal:
    return principal_of(key_row(id="key_user"), parse("models: [{name: m, endpoints: [{url: 'http://unused'}]}]"), 0)


async def test_a_key_that_was_moved_reads_nothing_of_its_former_team(
    pipeline: FakePipeline, database: Database
) -> None:
    keys = FakeKeyStore()
    keys.put(USER, key_row(id="key_user", team="red"))
    client = Client(create_app(parts(pipeline, keys=keys, database=database)))
    first = (await client.post("/v1/responses", ASK)).json
    conversation = (await client.post("/v1/conversations", {}, headers=CONTENT_TYPE)).json["id"]
    keys.put(USER, key_row(id="key_user", team="blue"))  # by another gateway, which has not announced it
    reference = {"input": [{"type": "item_reference", "id": first["output"][0]["id"]}]}
    for more in (
        {"previous_response_id": first["id"]},
        {"previous_response_id": first["id"], "background": True},
        {"conversation": conversation},
        reference,
        {**reference, "background": True},
    ):
        assert (await client.post("/v1/responses", {**ASK, **more})).status == 404
    for path in ("compact", "input_tokens"):
        asked = {"model": "chat", "previous_response_id": first["id"]}
        assert (await client.post(f"/v1/responses/{path}", asked)).status == 404
    made = (await client.post("/v1/responses", {**ASK, "background": True})).json
    async with database.connect() as connection:
        rows = await connection.exec_driver_sql("SELECT id, team FROM responses")
        assert dict(tuple(row) for row in rows)[made["id"]] == "blue"
