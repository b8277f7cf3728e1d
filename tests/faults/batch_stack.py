"""A platform whose processes a test of batches can kill: a simulated engine, a gateway, a worker and a redis-server."""

import asyncio
import io
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import openai
from openai.types import Batch
from sqlalchemy import text
from tests.platform import GatewayProcess, SimulatorProcess
from tests.servers import RedisServer, wait_until
from tests.worker.process import WorkerProcess

from quarterdeck.store.database import Database
from quarterdeck.store.keys import KeyStore

KEY, OTHER = "sk-qd-user", "sk-qd-other"
CONFIG = """
models:
  - name: chat
    engine: {source: ./chat, context: 4096}
    price: {input: "1", output: "2"}
  - name: org/emb
    engine: {source: ./emb, task: embed}
batches: {idle_share: 1, busy_share: 1, max_concurrency: 64}
gateway: {drain_seconds: 1, forward_headers: [x-fault]}
"""
ENDED = ("completed", "failed", "expired", "cancelled")
CHAT = "/v1/chat/completions"


class BatchStack:
    def __init__(
        self, folder: Path, redis: RedisServer, database_url: str, *, config: str = CONFIG, options: Sequence[str] = ()
    ) -> None:
        self.folder, self.redis, self.database_url = folder, redis, database_url
        self.simulator = SimulatorProcess(
            folder, ["--model", "chat", "--embedding-model", "org/emb", "--inter-token-latency", "1ms", *options]
        )
        self.simulator.start()
        self.environ = {
            "QUARTERDECK_ENGINE_URL": self.simulator.url,
            "QUARTERDECK_REDIS_URL": redis.url(0),
            "QUARTERDECK_DATABASE_URL": database_url,
            "QUARTERDECK_BLOBS": str(folder / "blobs"),
        }
        self.gateway = GatewayProcess(folder, config, self.environ)
        asyncio.run(self._seed())
        self.gateway.start()
        self._clients: dict[str, openai.OpenAI] = {}
        self.worker: WorkerProcess | None = None
        self.start_worker()

    async def _seed(self) -> None:
        database = Database(self.database_url)
        await database.migrate()
        keys = KeyStore(database)
        await keys.create(secret=KEY, name="user", is_admin=True)
        await keys.create(secret=OTHER, name="other", team="others")
        await database.close()

    def start_worker(self) -> None:
        environ = {**self.environ, "QUARTERDECK_GATEWAY_URL": self.gateway.url}
        environ["QUARTERDECK_CONFIG"] = str(self.gateway.config)
        self.worker = WorkerProcess(self.folder / "state", environ)
        self.worker.wait_until_started()

    def kill_worker(self) -> None:
        assert self.worker is not None
        self.worker.process.kill()
        self.worker.process.wait()

    def client(self, key: str = KEY) -> openai.OpenAI:
        if key not in self._clients:
            url = f"{self.gateway.url}/v1"
            self._clients[key] = openai.OpenAI(base_url=url, api_key=key, max_retries=5, timeout=60.0)
        return self._clients[key]

    def execute(self, statement: str, **values: Any) -> None:
        """Change the database behind the platform's back."""

        async def run() -> None:
            database = Database(self.database_url)
            async with database.begin() as connection:
                await connection.execute(text(statement), values)
            await database.close()

        asyncio.run(run())

    def admin(self, method: str, path: str, body: Any = None) -> Any:
        answer = httpx.request(
            method, self.gateway.url + path, json=body, headers={"authorization": f"Bearer {KEY}"}, timeout=30
        )
        assert answer.is_success, answer.text
        return answer.json()

    def create(
        self, lines: Sequence[Any], endpoint: str = CHAT, *, window: str = "24h", key: str = KEY, **more: Any
    ) -> Batch:
        content = "\n".join(json.dumps(line) for line in lines).encode()
        file = self.client(key).files.create(file=("in.jsonl", io.BytesIO(content)), purpose="batch")
        return self.client(key).batches.create(
            input_file_id=file.id,
            endpoint=endpoint,  # type: ignore[arg-type]  # any of a test
            completion_window=window,  # type: ignore[arg-type]  # as above
            **more,
        )

    def retrieve(self, batch: Batch) -> Batch:
        return self.client().batches.retrieve(batch.id)

    def ended(self, batch: Batch, *, seconds: float = 300) -> Batch:
        """Wait until it has ended."""

        def has_ended() -> bool:
            return self.retrieve(batch).status in ENDED

        wait_until(has_ended, seconds=seconds, what=lambda: f"{self.retrieve(batch)}")
        return self.retrieve(batch)

    def progressed(self, batch: Batch, count: int, *, seconds: float = 120) -> Batch:
        """Wait until so many requests have results."""

        def is_there() -> bool:
            found = self.retrieve(batch)
            assert found.request_counts is not None
            done = found.request_counts.completed + found.request_counts.failed
            return done >= count or found.status in ENDED

        wait_until(is_there, seconds=seconds, what=lambda: f"{self.retrieve(batch)}")
        return self.retrieve(batch)

    def lines(self, file_id: str | None) -> list[Any]:
        if file_id is None:
            return []
        return [json.loads(line) for line in self.client().files.content(file_id).text.split("\n") if line]

    def ledger(self) -> list[Any]:
        """The rows, once all records have arrived."""

        async def read() -> list[Any]:
            database = Database(self.database_url)
            try:
                async with database.connect() as connection:
                    query = "SELECT id, status, input_tokens, output_tokens, cost FROM ledger"
                    return list(await connection.execute(text(query)))
            finally:
                await database.close()

        before: list[Any] = []
        for _ in range(60):
            now = asyncio.run(read())
            if now and len(now) == len(before):
                return now
            before = now
            time.sleep(2)
        return before

    def end_leases(self) -> None:
        """As if the time of a dead worker's leases had passed."""
        self.execute("UPDATE jobs SET due = 0 WHERE finished IS NULL")

    def stop(self) -> None:
        for client in self._clients.values():
            client.close()
        if self.worker is not None and self.worker.process.poll() is None:
            self.worker.terminate()
        self.gateway.stop()
        self.simulator.stop()


def chat_line(number: int, **body: Any) -> dict[str, Any]:
    asked = {"model": "chat", "messages": [{"role": "user", "content": f"Say {number}."}], "max_tokens": 3}
    return {"custom_id": f"line-{number}", "method": "POST", "url": CHAT, "body": asked | body}
