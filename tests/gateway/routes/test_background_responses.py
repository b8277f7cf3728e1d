"""Background responses over HTTP with a fake pipeline: what is queued, executed, refused, locked and compacted."""

import asyncio
import json
import time
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from sqlalchemy import text
from tests.gateway.fakes import USER, Answer, Client, FakeKeyStore, FakePipeline, FakeStream, key_row, parts

from quarterdeck.errors import BadRequestError, EngineError, RateLimitError, ServiceUnavailableError
from quarterdeck.gateway.app import create_app
from quarterdeck.gateway.auth.job_credentials import JobCredentials
from quarterdeck.inference.call import Reply
from quarterdeck.protocol import sse
from quarterdeck.protocol.job_credentials import SECONDS, JobClaims, sign
from quarterdeck.resources.responses.background import Background
from quarterdeck.resources.responses.service import Responses
from quarterdeck.store.database import Database
from quarterdeck.store.jobs import Job, JobStore
from quarterdeck.store.packing import pack
from quarterdeck.store.platform_secrets import PlatformSecret

JSON = ((b"content-type", b"application/json"),)
ASK: dict[str, Any] = {"model": "chat", "input": "Hi", "background": True}
CONTENT_TYPE = (("content-type", "application/json"),)
OTHER = "sk-qd-other"


def whole(content: str = "Hello") -> Reply:
    body = {
        "model": "chat",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
    }
    return Reply(200, JSON, msgspec.json.encode(body))


def chunk(content: str = "", finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": {"content": content}, "finish_reason": finish}
    return sse.event({"id": "chatcmpl-1", "model": "chat", "choices": [choice]})


class Bench:
    """A gateway, and the worker that a test plays."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.pipeline = FakePipeline()
        self.pipeline.answer = whole()
        self.keys = keys = FakeKeyStore()
        keys.put(USER, key_row(id="key_user"))
        keys.put(OTHER, key_row(id="key_other", org="acme"))
        made = parts(self.pipeline, keys=keys, database=database)
        secret = PlatformSecret(database, "jobs")
        made = replace(made, job_credentials=JobCredentials(made.authenticator, secret))
        self.background: Background = made.background
        self.app_responses: Responses = made.responses
        self.app = create_app(made)
        self.client = Client(self.app)
        self.other = Client(self.app, OTHER)
        self.jobs = JobStore(database)
        self._secret = secret

    async def queue(self, **more: Any) -> dict[str, Any]:
        answer = await self.client.post("/v1/responses", {**ASK, **more})
        assert answer.status == 200, answer.body
        return dict(answer.json)

    async def queue_stream(self) -> str:
        """Queue a response whose text is shown as it comes. Returns its id."""
        made = await self.queue()
        request = msgspec.json.encode({**ASK, "stream": True})
        async with self.database.begin() as connection:
            await connection.execute(text("UPDATE jobs SET payload = :body"), {"body": request})
        return str(made["id"])

    async def conversation(self) -> str:
        answer = await self.client.post("/v1/conversations", {}, headers=CONTENT_TYPE)
        return str(answer.json["id"])

    async def claim(self) -> Job:
        (job,) = await self.jobs.claim("response", seconds=60, limit=1)
        return job

    async def run(self, job: Job) -> dict[str, Any]:
        """Execute it as a worker does. Returns the result."""
        claims = JobClaims(job.key, job.org, job.id, f"req_{job.id}", time.time() + SECONDS, job.subject, job.attempts)
        answer = await Client(self.app, sign(claims, await self._secret.read())).post("/v1/responses", job.payload)
        assert answer.status == 200, answer.body
        return dict(json.loads(answer.body.split(b"data: ")[-1]))

    async def response(self, id: str) -> dict[str, Any]:
        return dict((await self.client.get(f"/v1/responses/{id}")).json)

    async def rows(self, statement: str) -> Any:
        async with self.database.connect() as connection:
            return (await connection.execute(text(statement))).all()

    async def change(self, statement: str) -> None:
        async with self.database.begin() as connection:
            await connection.execute(text(statement))


@pytest.fixture
async def bench(database: Database) -> Bench:
    return Bench(database)


def events_of(answer: Answer) -> list[dict[str, Any]]:
    lines = answer.body.decode().splitlines()
    return [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: ")]


async def test_a_queued_response_is_executed_by_a_workers_request(bench: Bench) -> None:
    made = await bench.queue(metadata={"a": "b"})
    assert (made["status"], made["background"], made["output"]) == ("queued", True, [])
    assert await bench.response(made["id"]) == made
    assert bench.pipeline.calls == []
    assert await bench.run(await bench.claim()) == {"state": "done", "error": None, "after": None}
    found = await bench.response(made["id"])
    assert (found["status"], found["output"][0]["content"][0]["text"]) == ("completed", "Hello")
    ((head, _),) = bench.pipeline.calls
    assert (head.parent, head.principal.key) == (made["id"], "key_user")
    answer = await bench.client.get(f"/v1/responses/{made['id']}?stream=true")
    kinds = [event["type"] for event in events_of(answer)]
    assert kinds[:3] == ["response.created", "response.queued", "response.in_progress"]
    assert kinds[-1] == "response.completed"


async def test_a_repeated_job_finds_that_it_is_done_and_calls_no_engine(bench: Bench) -> None:
    await bench.queue()
    job = await bench.claim()
    await bench.run(job)
    assert (await bench.run(job))["state"] == "done"
    assert len(bench.pipeline.calls) == 1


async def test_a_call_that_may_succeed_later_is_put_back_and_one_that_will_not_fails(bench: Bench) -> None:
    made = await bench.queue()
    job = await bench.claim()
    bench.pipeline.answer = ServiceUnavailableError("No capacity.", retry_after=7)
    assert await bench.run(job) == {"state": "retry", "error": "No capacity.", "after": 7.0}
    assert (await bench.response(made["id"]))["status"] == "in_progress"
    bench.pipeline.answer = RateLimitError("The budget is exhausted.", code="insufficient_quota")
    assert (await bench.run(job))["state"] == "done"
    found = await bench.response(made["id"])
    assert (found["status"], found["error"]["code"]) == ("failed", "rate_limit_exceeded")
    first, second = (head.request_id for head, _ in bench.pipeline.calls)
    assert first != second  # the first call has left its record


async def test_a_request_that_the_model_refuses_is_a_failed_response(bench: Bench) -> None:
    made = await bench.queue()
    bench.pipeline.answer = BadRequestError("Too long.", code="context_length_exceeded")
    await bench.run(await bench.claim())
    assert (await bench.response(made["id"]))["error"]["message"] == "Too long."


async def test_while_another_gateway_may_run_it_an_attempt_waits(bench: Bench) -> None:
    made = await bench.queue()
    job = await bench.claim()
    await bench.change(f"UPDATE responses SET status = 'in_progress', attempt = 1, alive_until = {time.time() + 60}")
    assert (await bench.run(job))["state"] == "busy"
    await bench.change("UPDATE responses SET alive_until = 1")
    assert (await bench.run(job))["state"] == "done"
    assert (await bench.response(made["id"]))["status"] == "completed"


async def test_a_repeated_engine_call_has_the_same_request_id(bench: Bench) -> None:
    await bench.queue()
    job = await bench.claim()
    hangs = FakeStream([], hangs=True)
    bench.pipeline.answer = Reply(200, sse.HEADERS, stream=hangs)
    first = asyncio.create_task(bench.run(job))
    async with asyncio.timeout(60):
        while not bench.pipeline.calls:  # noqa: ASYNC110  # the fake has no event
            await asyncio.sleep(0.01)
    (dead,) = bench.background._runs.values()
    bench.background._runs.clear()  # as if that gateway were dead
    await bench.change("UPDATE responses SET alive_until = 1")
    bench.pipeline.answer = whole()
    assert (await bench.run(job))["state"] == "done"
    ids = [head.request_id for head, _ in bench.pipeline.calls]
    assert ids[0] == ids[1]
    assert dead.task is not None
    dead.stop()
    await asyncio.gather(first, dead.task, return_exceptions=True)


async def test_a_shown_text_is_continued_by_the_next_attempt(bench: Bench) -> None:
    made = await bench.client.post("/v1/responses", ASK)
    job = await bench.claim()
    steps = await pack([["text", "Hel", []]])
    async with bench.database.begin() as connection:
        statement = text("INSERT INTO response_steps (response, position, count, body) VALUES (:id, 0, 1, :body)")
        await connection.execute(statement, {"id": made.json["id"], "body": steps})
    await bench.change("UPDATE responses SET status = 'in_progress', attempt = 1, alive_until = 1")
    bench.pipeline.answer = whole("lo")
    assert (await bench.run(job))["state"] == "done"
    found = await bench.response(made.json["id"])
    assert found["output"][0]["content"][0]["text"] == "Hello"
    ((_, sent),) = bench.pipeline.calls
    asked = json.loads(sent)
    assert asked["messages"][-1] == {"role": "assistant", "content": "Hel"}
    assert (asked["continue_final_message"], asked["add_generation_prompt"]) == (True, False)


async def begun(bench: Bench, job: Job, *pieces: bytes) -> "asyncio.Task[dict[str, Any]]":
    """A worker's request, of whose response these pieces have come and are stored. It goes on."""
    bench.pipeline.answer = Reply(200, sse.HEADERS, stream=FakeStream(pieces, hangs=True))
    task = asyncio.create_task(bench.run(job))
    async with asyncio.timeout(60):
        while not (runs := list(bench.background._runs.values())) or runs[0].stored < len(pieces):  # noqa: ASYNC110  # as above
            await asyncio.sleep(0.01)
    return task


async def test_a_shutdown_gives_a_response_back_and_its_engine_call_is_made_again(bench: Bench) -> None:
    made = await bench.queue_stream()
    job = await bench.claim()
    first = await begun(bench, job, chunk("Hel"))
    (run,) = bench.background._runs.values()
    run.stop()  # as at the end of the process
    assert await first == {"state": "busy", "error": None, "after": None}
    bench.pipeline.answer = whole("lo")
    assert (await bench.run(job))["state"] == "done"
    found = await bench.response(made)
    assert found["output"][0]["content"][0]["text"] == "Hello"
    (cut_off, _), (repeated, sent) = bench.pipeline.calls
    assert cut_off.request_id == repeated.request_id
    assert cut_off.repeats is not None and cut_off.repeats()
    assert json.loads(sent)["messages"][-1] == {"role": "assistant", "content": "Hel"}


async def test_a_text_whose_engine_failed_is_continued_by_another_request(bench: Bench) -> None:
    made = await bench.queue_stream()
    job = await bench.claim()
    broken = FakeStream([chunk("Hel"), sse.error_event(EngineError("It broke."))])
    broken.error = EngineError("It broke.")  # type: ignore[attr-defined]
    bench.pipeline.answer = Reply(200, sse.HEADERS, stream=broken)
    assert (await bench.run(job))["state"] == "retry"
    bench.pipeline.answer = whole("lo")
    assert (await bench.run(job))["state"] == "done"
    found = await bench.response(made)
    assert found["output"][0]["content"][0]["text"] == "Hello"
    (failed, _), (repeated, sent) = bench.pipeline.calls
    assert failed.request_id != repeated.request_id
    assert json.loads(sent)["messages"][-1] == {"role": "assistant", "content": "Hel"}


@pytest.mark.parametrize("where", ["here", "elsewhere"])
async def test_an_engine_call_of_a_cancelled_response_is_not_made_again(bench: Bench, where: str) -> None:
    made = await bench.queue_stream()
    job = await bench.claim()
    first = await begun(bench, job, chunk("Hel"))
    if where == "elsewhere":
        bench.app_responses.stop = lambda response: None
    assert (await bench.client.post(f"/v1/responses/{made}/cancel")).json["status"] == "cancelled"
    if where == "elsewhere":
        await bench.background._renew()
    assert (await first)["state"] == "busy"
    ((head, _),) = bench.pipeline.calls
    assert head.repeats is not None and not head.repeats()
    assert (await bench.run(job))["state"] == "done"


async def test_a_response_whose_key_is_revoked_fails_with_what_it_has_said(bench: Bench) -> None:
    made = await bench.queue_stream()
    job = await bench.claim()
    first = await begun(bench, job, chunk("Hel"))
    await bench.background._check_keys()
    assert not first.done()
    bench.keys.put(USER, key_row(id="key_user", revoked=time.time()))
    await bench.background._check_keys()
    assert (await first)["state"] == "done"
    row = (await bench.rows("SELECT status FROM responses"))[0]
    assert row.status == "failed"
    ((head, _),) = bench.pipeline.calls
    assert head.repeats is not None and not head.repeats()
    bench.keys.put(USER, key_row(id="key_user"))
    found = await bench.response(made)
    assert found["output"][0]["content"][0]["text"] == "Hel"
    assert "revoked" in found["error"]["message"]


async def test_an_engine_call_that_another_gateway_has_taken_over_is_made_again(bench: Bench) -> None:
    await bench.queue_stream()
    job = await bench.claim()
    first = await begun(bench, job, chunk("Hel"))
    await bench.change("UPDATE responses SET attempt = attempt + 1")
    await bench.background._renew()
    assert (await first)["state"] == "busy"
    ((head, _),) = bench.pipeline.calls
    assert head.repeats is not None and head.repeats()


async def test_a_cancelled_response_is_not_executed_and_cancelling_is_idempotent(bench: Bench) -> None:
    made = await bench.queue()
    job = await bench.claim()
    first = await bench.client.post(f"/v1/responses/{made['id']}/cancel")
    assert (first.status, first.json["status"]) == (200, "cancelled")
    assert (await bench.client.post(f"/v1/responses/{made['id']}/cancel")).json == first.json
    assert (await bench.run(job))["state"] == "done"
    assert bench.pipeline.calls == []
    assert await bench.jobs.renew([job.lease], seconds=60) == set()


async def test_other_organisations_neither_see_nor_cancel_it(bench: Bench) -> None:
    made = await bench.queue()
    path = f"/v1/responses/{made['id']}"
    answers = [
        await bench.other.get(path),
        await bench.other.get(f"{path}?stream=true"),
        await bench.other.post(f"{path}/cancel"),
        await bench.other.request("DELETE", path),
    ]
    assert [answer.status for answer in answers] == [404] * 4
    assert (await bench.response(made["id"]))["status"] == "queued"


async def test_a_deleted_response_takes_its_job_and_its_input_with_it(bench: Bench) -> None:
    made = await bench.queue()
    assert (await bench.client.request("DELETE", f"/v1/responses/{made['id']}")).status == 200
    assert await bench.jobs.claim("response", seconds=60, limit=1) == []
    async with bench.database.connect() as connection:
        assert (await connection.execute(text("SELECT payload FROM jobs"))).scalars().all() == [None]


async def test_without_store_it_is_refused(bench: Bench) -> None:
    answer = await bench.client.post("/v1/responses", {**ASK, "store": False})
    assert (answer.status, answer.error["param"]) == (400, "background")


async def test_a_background_response_continues_and_extends_a_locked_conversation(bench: Bench) -> None:
    conversation = await bench.conversation()
    made = await bench.queue(conversation=conversation)
    for more in ({}, {"background": False}, {"stream": True, "background": False}):
        answer = await bench.client.post("/v1/responses", {**ASK, "conversation": conversation, **more})
        assert (answer.status, answer.error["code"]) == (409, "conversation_locked")
    items = {"items": [{"role": "user", "content": "x"}]}
    assert (
        await bench.client.post(f"/v1/conversations/{conversation}/items", items, headers=CONTENT_TYPE)
    ).status == 409
    await bench.run(await bench.claim())
    assert (
        await bench.client.post(f"/v1/conversations/{conversation}/items", items, headers=CONTENT_TYPE)
    ).status == 200
    found = (await bench.client.get(f"/v1/conversations/{conversation}/items?order=asc")).json["data"]
    assert [item["role"] for item in found] == ["user", "assistant", "user"]
    assert (await bench.response(made["id"]))["conversation"] == {"id": conversation}


async def test_a_refused_response_leaves_its_conversation_free(bench: Bench) -> None:
    conversation = await bench.conversation()
    asked = {"model": "chat", "input": "Hi", "conversation": conversation}
    bench.pipeline.answer = RateLimitError("Slow down.")
    assert (await bench.client.post("/v1/responses", asked)).status == 429
    bench.pipeline.answer = whole()
    async with asyncio.timeout(60):  # it is unlocked behind the answer
        while (await bench.client.post("/v1/responses", asked)).status == 409:  # noqa: ASYNC110  # no event for it
            await asyncio.sleep(0)
    found = (await bench.client.get(f"/v1/conversations/{conversation}/items")).json["data"]
    assert len(found) == 2


async def test_concurrent_responses_in_one_conversation_lose_and_mix_no_items(bench: Bench) -> None:
    conversation = await bench.conversation()
    clients = [Client(bench.app) for _ in range(6)]
    asked = [{"model": "chat", "input": f"Ask {index}", "conversation": conversation} for index in range(6)]
    answers = await asyncio.gather(
        *(client.post("/v1/responses", body) for client, body in zip(clients, asked, strict=True))
    )
    statuses = [answer.status for answer in answers]
    assert set(statuses) <= {200, 409}
    assert 200 in statuses
    found = (await bench.client.get(f"/v1/conversations/{conversation}/items?order=asc&limit=100")).json["data"]
    assert [item["role"] for item in found] == ["user", "assistant"] * statuses.count(200)


async def test_a_compacted_conversation_is_continued_from_its_summary(bench: Bench) -> None:
    given = [
        {"role": "user", "content": "My name is Zoë."},
        {"role": "assistant", "content": "Hello Zoë, this is a long answer."},
    ]
    bench.pipeline.answer = whole("The user is called Zoë.")
    answer = await bench.client.post("/v1/responses/compact", {"model": "chat", "input": given})
    assert answer.json["object"] == "response.compaction"
    assert answer.json["usage"]["total_tokens"] == 5
    (item,) = answer.json["output"]
    assert item["type"] == "compaction"
    assert "Zoë" not in answer.body.decode()
    follow = {"model": "chat", "input": [item, {"role": "user", "content": "Who am I?"}]}
    made = await bench.client.post("/v1/responses", follow)
    messages = json.loads(bench.pipeline.calls[-1][1])["messages"]
    assert [message["role"] for message in messages] == ["user", "assistant", "user"]
    assert messages[0]["content"] == "My name is Zoë."
    assert "The user is called Zoë." in messages[1]["content"]
    listed = (await bench.client.get(f"/v1/responses/{made.json['id']}/input_items?order=asc")).json["data"]
    assert listed[0] == item
    chained = {"model": "chat", "input": "And now?", "previous_response_id": made.json["id"]}
    assert (await bench.client.post("/v1/responses", chained)).status == 200
    refused = await bench.other.post("/v1/responses", follow)
    assert (refused.status, refused.error["code"]) == (400, "invalid_encrypted_content")


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"input": "Hi"}, "model"),
        ({"model": "chat"}, "input"),
        ({"model": "chat", "input": "Hi", "tools": []}, "tools"),
        ({"model": "chat", "input": "Hi", "image": {}}, "image"),
        ({"model": "chat", "input": "Hi", "what": 1}, "what"),
    ],
)
async def test_what_compaction_does_not_serve_is_refused_by_name(
    bench: Bench, body: dict[str, Any], param: str
) -> None:
    answer = await bench.client.post("/v1/responses/compact", body)
    assert (answer.status, answer.error["param"]) == (400, param)
