"""A platform whose processes a test of responses can kill: two engines, two gateways, a worker and Redis."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import openai
from sqlalchemy import text
from tests.platform import GatewayProcess, SimulatorProcess
from tests.servers import RedisServer, wait_until
from tests.worker.process import WorkerProcess

from quarterdeck.store.database import Database
from quarterdeck.store.keys import KeyStore

CONFIG = """
models:
  - name: chat
    engine: {{source: ./chat, context: 4096}}
    price: {{input: "1", output: "2"}}
  - name: pair
    price: {{input: "1", output: "2"}}
    endpoints: [{{url: "{first}"}}, {{url: "{second}"}}]
gateway: {{drain_seconds: 0.2, reservation_lease_seconds: 2}}
"""
KEY, OTHER = "sk-qd-user", "sk-qd-other"
SECONDS = 60.0
"""Each wait is for a state, and ends as soon as it is reached."""
ASK: Any = {
    "model": "chat",
    "input": "Count.",
    "background": True,
    "max_output_tokens": 300,
    "extra_body": {"ignore_eos": True},
}
PLAIN: Any = {name: value for name, value in ASK.items() if name != "background"}
"""The same in the foreground."""


class ResponseStack:
    """`gateway` executes background responses; clients of `other` outlive it. `chat` is served by the first engine,
    `pair` by both."""

    def __init__(self, folder: Path, redis: RedisServer, database_url: str) -> None:
        self.folder = folder
        self.redis = redis
        self.database_url = database_url
        self._clients: list[openai.OpenAI] = []
        options = ["--model", "chat", "--more-models", "pair", "--inter-token-latency", "20ms"]
        self.engine = SimulatorProcess(folder, options, "first")
        self.spare = SimulatorProcess(folder, options, "second")
        self.environ = {
            "QUARTERDECK_ENGINE_URL": self.engine.url,
            "QUARTERDECK_REDIS_URL": redis.url(0),
            "QUARTERDECK_DATABASE_URL": self.database_url,
        }
        config = CONFIG.format(first=self.engine.url, second=self.spare.url)
        self.gateway = GatewayProcess(folder, config, self.environ)
        (folder / "other").mkdir()
        state = {"QUARTERDECK_STATE": str(folder / "other" / "state")}
        self.other = GatewayProcess(folder / "other", config, self.environ | state, "other")
        self.worker: WorkerProcess | None = None

    def start(self) -> None:
        self.engine.start()
        self.spare.start()
        asyncio.run(self._seed())
        self.gateway.start()
        self.other.start()
        self.worker = self.start_worker()

    async def _seed(self) -> None:
        database = Database(self.database_url)
        await database.migrate()
        keys = KeyStore(database)
        await keys.create(secret=KEY, name="user")
        await keys.create(secret=OTHER, name="other")
        await database.close()

    def end_gateway(self, *, is_killed: bool) -> None:
        """End the gateway that executes responses, and start it again."""
        if is_killed:
            self.gateway.kill()
        else:
            self.gateway.stop()
        self.gateway.start()

    def kill_worker(self) -> None:
        assert self.worker is not None
        self.worker.kill()

    def start_worker(self) -> WorkerProcess:
        worker = WorkerProcess(self.folder, {**self.environ, "QUARTERDECK_GATEWAY_URL": self.gateway.url})
        worker.wait_until_started()
        return worker

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

    def is_idle(self) -> bool:
        """No engine computes."""
        return self.engine.running() + self.spare.running() == 0

    def records(self, response_id: str, count: int) -> list[Any]:
        """The response's ledger rows in order of time, when there are so many and none is an estimate."""
        found: list[Any] = []

        def are_there() -> bool:
            found[:] = self.query("SELECT * FROM ledger WHERE parent = :id ORDER BY started", id=response_id)
            return len(found) == count and all(row.status != "lost" for row in found)

        wait_until(are_there, seconds=SECONDS, what=lambda: f"{[(row.id, row.status) for row in found]}")
        return found

    def query(self, statement: str, **values: Any) -> Sequence[Any]:
        async def run() -> Sequence[Any]:
            database = Database(self.database_url)
            try:
                async with database.connect() as connection:
                    return list(await connection.execute(text(statement), values))
            finally:
                await database.close()

        return asyncio.run(run())

    def change(self, statement: str, **values: Any) -> None:
        """Change the database behind the platform's back."""

        async def run() -> None:
            database = Database(self.database_url)
            async with database.begin() as connection:
                await connection.execute(text(statement), values)
            await database.close()

        asyncio.run(run())

    def end_leases(self) -> None:
        """As if the time of a dead gateway's and a dead worker's leases had passed."""
        self.change("UPDATE responses SET alive_until = 1 WHERE status = 'in_progress'")
        self.change("UPDATE jobs SET due = 0 WHERE finished IS NULL")

    def repair(self) -> None:
        """Start what has stopped, and wait until all of it answers."""
        for part in (self.redis, self.engine, self.spare, self.gateway, self.other):
            if part.process is None:
                part.start()
            else:
                wait_until(part.answers, seconds=SECONDS, what=lambda: "a part does not answer")

    def stop(self) -> None:
        for client in self._clients:
            client.close()
        if self.worker is not None:
            self.worker.kill()
        for part in (self.gateway, self.other, self.engine, self.spare, self.redis):
            part.stop()


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
