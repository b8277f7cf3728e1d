"""A gateway that ends while a stored response is streamed leaves it incomplete, with the reason."""

import asyncio
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest
from openai.types.responses import ResponseStreamEvent
from sqlalchemy import text
from tests.platform import GatewayProcess, SimulatorProcess
from tests.servers import RedisServer, short_folder, wait_until

from quarterdeck.store.database import Database
from quarterdeck.store.keys import KeyStore

CONFIG = """
models: [{name: chat, engine: {source: ./chat, context: 4096}}]
gateway: {drain_seconds: 0.2}
"""
KEY = "sk-qd-user"

pytestmark = pytest.mark.long  # two platforms are started, and their gateways once more


class Stack:
    """A gateway over a slow engine."""

    def __init__(self, folder: Path, redis_url: str) -> None:
        self.database_url = f"sqlite+aiosqlite:///{folder}/quarterdeck.db"
        self.simulator = SimulatorProcess(folder, ["--model", "chat", "--inter-token-latency", "50ms"])
        self.simulator.start()
        environ = {
            "QUARTERDECK_ENGINE_URL": self.simulator.url,
            "QUARTERDECK_REDIS_URL": redis_url,
            "QUARTERDECK_DATABASE_URL": self.database_url,
        }
        self.gateway = GatewayProcess(folder, CONFIG, environ)
        asyncio.run(self._seed())
        self.gateway.start()
        self._client = openai.OpenAI(base_url=f"{self.gateway.url}/v1", api_key=KEY, max_retries=2, timeout=20.0)
        self._open: list[openai.Stream[ResponseStreamEvent]] = []

    async def _seed(self) -> None:
        database = Database(self.database_url)
        await database.migrate()
        await KeyStore(database).create(secret=KEY, name="user")
        await database.close()

    def client(self) -> openai.OpenAI:
        return self._client

    def begin(self) -> str:
        """The id of a stored response that is being streamed."""
        made = self.client().responses.create(
            model="chat", input="Count.", max_output_tokens=2000, stream=True, extra_body={"ignore_eos": True}
        )
        self._open.append(made)  # its client stays connected
        seen, found = 0, ""
        for event in made:
            if event.type == "response.created":
                found = event.response.id
            seen += event.type == "response.output_text.delta"
            if seen == 3:
                break
        return found

    async def end_leases(self) -> None:
        """As if their time had passed."""
        database = Database(self.database_url)
        async with database.begin() as connection:
            await connection.execute(text("UPDATE responses SET alive_until = 1 WHERE alive_until IS NOT NULL"))
        await database.close()

    def stop(self) -> None:
        for made in self._open:
            made.close()
        self._client.close()
        self.gateway.stop()
        self.simulator.stop()


@pytest.fixture
def stack(redis_server: RedisServer) -> Iterator[Stack]:
    folder = short_folder()
    made = Stack(folder, redis_server.url(0))
    yield made
    made.stop()
    shutil.rmtree(folder)


def test_after_a_kill_it_is_incomplete_when_its_lease_has_ended(stack: Stack) -> None:
    response_id = stack.begin()
    stack.gateway.kill()
    stack.gateway.start()
    assert stack.client().responses.retrieve(response_id).status == "in_progress"
    asyncio.run(stack.end_leases())
    found = stack.client().responses.retrieve(response_id)
    assert (found.status, found.output) == ("incomplete", [])
    assert found.error is not None
    assert found.error.message == "The gateway stopped before the response was complete."
    again = list(stack.client().responses.retrieve(response_id, stream=True))
    assert again[-1].type == "response.incomplete"
    asked = stack.client().responses.create(
        model="chat", input="Again.", previous_response_id=response_id, max_output_tokens=4
    )
    assert asked.previous_response_id == response_id


def test_after_a_shutdown_it_is_incomplete_with_what_was_said(stack: Stack) -> None:
    response_id = stack.begin()
    stack.gateway.stop(signal.SIGTERM)
    stack.gateway.start()

    def has_ended() -> bool:
        return stack.client().responses.retrieve(response_id).status != "in_progress"

    wait_until(has_ended, seconds=10, what=lambda: "the response is still in progress")
    found = stack.client().responses.retrieve(response_id)
    assert found.status == "incomplete"
    assert found.error is not None
    assert found.output_text
