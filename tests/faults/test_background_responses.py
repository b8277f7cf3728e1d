"""Background responses survive the processes that execute them, are charged once, and stop when they are cancelled."""

import asyncio
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from sqlalchemy import text
from tests.platform import GatewayProcess, SimulatorProcess
from tests.servers import RedisServer, short_folder, wait_until
from tests.worker.process import WorkerProcess

from quarterdeck.store.database import Database
from quarterdeck.store.keys import KeyStore

CONFIG = """
models:
  - name: chat
    engine: {source: ./chat, context: 4096}
    price: {input: "1", output: "2"}
gateway: {drain_seconds: 0.2, reservation_lease_seconds: 2}
"""
KEY, OTHER = "sk-qd-user", "sk-qd-other"
pytestmark = pytest.mark.long  # a platform of five processes, some of which are started again

SECONDS = 120.0
"""Each wait is for a state, and ends as soon as it is reached."""
ASK: Any = {
    "model": "chat",
    "input": "Count.",
    "background": True,
    "max_output_tokens": 300,
    "extra_body": {"ignore_eos": True},
}


class Stack:
    """Two gateways and a worker over a slow engine."""

    def __init__(self, folder: Path, redis_url: str) -> None:
        self.folder = folder
        self._clients: list[openai.OpenAI] = []
        self.database_url = f"sqlite+aiosqlite:///{folder}/quarterdeck.db"
        self.simulator = SimulatorProcess(folder, ["--model", "chat", "--inter-token-latency", "20ms"])
        self.environ = {
            "QUARTERDECK_ENGINE_URL": self.simulator.url,
            "QUARTERDECK_REDIS_URL": redis_url,
            "QUARTERDECK_DATABASE_URL": self.database_url,
        }
        self.gateway = GatewayProcess(folder, CONFIG, self.environ)
        self.other = GatewayProcess(folder, CONFIG, self.environ, "other")
        self.worker: WorkerProcess | None = None

    def start(self) -> None:
        self.simulator.start()
        asyncio.run(self._seed())
        self.gateway.start()
        self.other.start()
        self.worker = self.start_worker()

    def kill_gateway(self) -> None:
        """Kill the gateway that executes responses, and start it again."""
        self.gateway.kill()
        try:
            self.gateway.start()
        except TimeoutError:  # on a busy machine
            wait_until(self.gateway.answers, seconds=SECONDS, what=lambda: "the gateway does not start")

    def kill_worker(self) -> None:
        assert self.worker is not None
        self.worker.kill()

    def start_worker(self) -> WorkerProcess:
        worker = WorkerProcess(self.folder, {**self.environ, "QUARTERDECK_GATEWAY_URL": self.gateway.url})
        worker.wait_until_started()
        return worker

    async def _seed(self) -> None:
        database = Database(self.database_url)
        await database.migrate()
        keys = KeyStore(database)
        await keys.create(secret=KEY, name="user")
        await keys.create(secret=OTHER, name="other")
        await database.close()

    def client(self, gateway: GatewayProcess | None = None) -> openai.OpenAI:
        url = (gateway or self.gateway).url
        made = openai.OpenAI(
            base_url=f"{url}/v1", api_key=KEY, max_retries=0, timeout=SECONDS, _strict_response_validation=True
        )
        self._clients.append(made)
        return made

    def ended(self, response_id: str) -> Any:
        """The response when it has ended."""
        client, found = self.client(self.other), []

        def has_ended() -> bool:
            found[:] = [client.responses.retrieve(response_id)]
            return found[0].status not in ("queued", "in_progress")

        wait_until(has_ended, seconds=SECONDS, what=lambda: f"the response is {found[0].status}")
        return found[0]

    def records(self, response_id: str, count: int) -> list[Any]:
        """The response's ledger rows, when there are so many and none is an estimate."""
        found: list[Any] = []

        def are_there() -> bool:
            found[:] = [row for row in asyncio.run(self._rows()) if row.parent == response_id]
            return len(found) == count and all(row.status != "lost" for row in found)

        wait_until(are_there, seconds=SECONDS, what=lambda: f"{[(row.id, row.status) for row in found]}")
        return found

    async def _rows(self) -> list[Any]:
        database = Database(self.database_url)
        try:
            async with database.connect() as connection:
                return list(await connection.execute(text("SELECT * FROM ledger WHERE parent IS NOT NULL")))
        finally:
            await database.close()

    async def change(self, statement: str) -> None:
        database = Database(self.database_url)
        async with database.begin() as connection:
            await connection.execute(text(statement))
        await database.close()

    def end_leases(self) -> None:
        """As if their time had passed."""
        asyncio.run(self.change("UPDATE responses SET alive_until = 1 WHERE status = 'in_progress'"))
        asyncio.run(self.change("UPDATE jobs SET due = 0 WHERE finished IS NULL"))

    def stop(self) -> None:
        for client in self._clients:
            client.close()
        if self.worker is not None:
            self.worker.kill()
        for gateway in (self.gateway, self.other):
            gateway.stop()
        self.simulator.stop()


@pytest.fixture(scope="module")
def stack(redis_server: RedisServer) -> Iterator[Stack]:
    folder = short_folder()
    made = Stack(folder, redis_server.url(0))
    try:
        made.start()
        yield made
    finally:
        made.stop()
        shutil.rmtree(folder)


def begun(stream: Any, deltas: int = 5) -> tuple[str, list[Any]]:
    """The id of a response that has begun to speak, and its events so far."""
    events: list[Any] = []
    for event in stream:
        events.append(event)
        if sum(each.type == "response.output_text.delta" for each in events) >= deltas:
            break
    return events[0].response.id, events


def text_of(events: list[Any]) -> str:
    return "".join(event.delta for event in events if event.type == "response.output_text.delta")


def test_a_response_is_queued_at_once_and_completes_without_its_client(stack: Stack) -> None:
    client = stack.client()
    made = client.responses.create(**{**ASK, "max_output_tokens": 20}, metadata={"a": "b"})
    assert (made.status, made.background, made.output) == ("queued", True, [])
    found = stack.ended(made.id)
    assert (found.status, found.incomplete_details.reason) == ("incomplete", "max_output_tokens")
    assert (found.id, found.metadata, found.output_text != "") == (made.id, {"a": "b"}, True)
    (record,) = stack.records(made.id, 1)
    assert (record.output_tokens, record.status) == (found.usage.output_tokens, "ok")
    items = client.responses.input_items.list(made.id)
    assert [item.type for item in items] == ["message"]
    again = client.responses.create(model="chat", input="And?", previous_response_id=made.id, max_output_tokens=4)
    assert again.status == "incomplete"


def test_its_events_are_followed_from_any_gateway_and_from_any_number(stack: Stack) -> None:
    made = stack.client().responses.create(**{**ASK, "max_output_tokens": 60}, stream=True)
    response_id, first = begun(made)
    made.close()
    after = first[-1].sequence_number
    rest = list(stack.client(stack.other).responses.retrieve(response_id, stream=True, starting_after=after))
    events = first + rest
    assert [event.sequence_number for event in events] == list(range(len(events)))
    kinds = [event.type for event in events]
    assert kinds[:3] == ["response.created", "response.queued", "response.in_progress"]
    assert kinds[-1] == "response.incomplete"
    assert events[-1].response.output_text == text_of(events)
    assert list(stack.client().responses.retrieve(response_id, stream=True)) == events


def test_a_cancelled_response_stops_its_engine_and_stays_cancelled(stack: Stack) -> None:
    client = stack.client(stack.other)
    made = stack.client().responses.create(**{**ASK, "max_output_tokens": 3000}, stream=True)
    response_id, first = begun(made)
    cancelled = client.responses.cancel(response_id)
    assert cancelled.status == "cancelled"
    wait_until(lambda: stack.simulator.running() == 0, seconds=SECONDS, what=lambda: "the engine still runs")
    events = first + list(made)
    assert events[-1].response.status == "cancelled"
    assert client.responses.cancel(response_id) == cancelled
    assert client.responses.retrieve(response_id) == cancelled
    assert list(client.responses.retrieve(response_id, stream=True)) == events


def test_a_queued_response_is_cancelled_before_it_runs(stack: Stack) -> None:
    stack.kill_worker()
    try:
        made = stack.client().responses.create(**ASK)
        assert stack.client().responses.cancel(made.id).status == "cancelled"
    finally:
        stack.worker = stack.start_worker()
    after = stack.client().responses.create(**{**ASK, "max_output_tokens": 5})
    stack.ended(after.id)
    assert stack.client().responses.retrieve(made.id).status == "cancelled"


def test_a_deleted_response_stops_its_engine(stack: Stack) -> None:
    made = stack.client().responses.create(**{**ASK, "max_output_tokens": 3000}, stream=True)
    response_id, _ = begun(made)
    stack.client(stack.other).responses.delete(response_id)
    wait_until(lambda: stack.simulator.running() == 0, seconds=SECONDS, what=lambda: "the engine still runs")
    with pytest.raises(openai.APIError):
        list(made)
    with pytest.raises(openai.NotFoundError):
        stack.client().responses.retrieve(response_id)


def test_what_cannot_be_cancelled_or_queued_is_refused(stack: Stack) -> None:
    client = stack.client()
    plain = client.responses.create(model="chat", input="Hi", max_output_tokens=4)
    with pytest.raises(openai.BadRequestError, match="synchronous"):
        client.responses.cancel(plain.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.cancel("resp_" + "0" * 24)
    with pytest.raises(openai.BadRequestError, match="store"):
        client.responses.create(**ASK, store=False)


def test_a_request_that_no_engine_takes_is_a_failed_response(stack: Stack) -> None:
    made = stack.client().responses.create(model="unknown", input="Hi", background=True)
    found = stack.ended(made.id)
    assert found.status == "failed"
    assert "unknown" in found.error.message


def test_after_a_kill_of_its_worker_it_goes_on_and_is_charged_once(stack: Stack) -> None:
    made = stack.client().responses.create(**ASK, stream=True)
    response_id, first = begun(made)
    stack.kill_worker()
    events = first + list(made)
    assert events[-1].response.output_text == text_of(events)
    stack.worker = stack.start_worker()
    stack.end_leases()
    (record,) = stack.records(response_id, 1)
    assert record.output_tokens == events[-1].response.usage.output_tokens == 300


def test_after_a_kill_of_its_gateway_its_text_goes_on_and_is_charged_once(stack: Stack) -> None:
    whole = stack.client().responses.create(**{**ASK, "background": False})
    client = stack.client(stack.other)
    made = client.responses.create(**ASK, stream=True)
    response_id, first = begun(made, 20)
    stack.kill_gateway()
    stack.end_leases()
    events = first + list(made)
    last = events[-1]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert last.type == "response.incomplete"
    assert last.response.output_text == text_of(events)
    said = text_of(first)
    assert last.response.output_text.startswith(said)
    assert whole.output_text.startswith(said)
    assert list(client.responses.retrieve(response_id, stream=True)) == events
    (record,) = stack.records(response_id, 1)
    assert record.status == "ok"


def test_after_a_kill_of_its_gateway_one_that_is_not_streamed_begins_again(stack: Stack) -> None:
    made = stack.client(stack.other).responses.create(**ASK)
    wait_until(lambda: stack.simulator.running() == 1, seconds=SECONDS, what=lambda: "the engine does not run")
    stack.kill_gateway()
    stack.end_leases()
    found = stack.ended(made.id)
    assert found.usage.output_tokens == 300
    (record,) = stack.records(made.id, 1)
    assert (record.output_tokens, record.status) == (300, "ok")


def test_a_conversation_is_locked_while_a_response_is_made_in_it(stack: Stack) -> None:
    client = stack.client()
    conversation = client.conversations.create()
    made = client.responses.create(**{**ASK, "max_output_tokens": 3000}, stream=True, conversation=conversation.id)
    response_id, _ = begun(made)
    asked: Any = {"model": "chat", "input": "Me too", "conversation": conversation.id, "max_output_tokens": 4}
    for more in ({}, {"stream": True}, {"background": True}):
        with pytest.raises(openai.ConflictError) as refused:
            stack.client(stack.other).responses.create(**asked, **more)
        assert refused.value.code == "conversation_locked"
    with pytest.raises(openai.ConflictError):
        client.conversations.items.create(conversation.id, items=[{"role": "user", "content": "x"}])
    client.responses.cancel(response_id)
    client.responses.create(**asked)
    items = list(client.conversations.items.list(conversation.id, order="asc"))
    assert [item.role for item in items if item.type == "message"] == ["user", "assistant"]


def test_a_gateway_that_dies_releases_the_conversations_of_its_responses(stack: Stack) -> None:
    client = stack.client(stack.other)
    conversation = client.conversations.create()
    asked: Any = {"model": "chat", "input": "Hi", "conversation": conversation.id}
    made = stack.client().responses.create(
        **asked, stream=True, max_output_tokens=3000, extra_body={"ignore_eos": True}
    )
    begun(made)
    stack.kill_gateway()
    with pytest.raises(openai.ConflictError):
        client.responses.create(**asked, max_output_tokens=4)
    asyncio.run(stack.change(f"UPDATE conversations SET locked_until = {time.time() - 1} WHERE locked_by IS NOT NULL"))
    assert client.responses.create(**asked, max_output_tokens=4).output_text
