"""A platform with the names of `make run`'s models, for the clients of other projects."""

import asyncio
import shutil
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from tests.platform import GatewayProcess, SimulatorProcess
from tests.servers import CLIENTS, RedisServer, short_folder

from quarterdeck.store.database import Database
from quarterdeck.store.keys import KeyStore

KEY = "sk-qd-clients"
CHAT_MODEL, EMBEDDING_MODEL, STRICT_MODEL = "smollm2-135m-instruct", "all-minilm-l6-v2", "texts-only"
CONFIG = f"""
models:
  - name: {CHAT_MODEL}
    engine: {{source: ./chat, context: 8192, tool_parser: hermes}}
  - name: {EMBEDDING_MODEL}
    engine: {{source: ./emb, task: embed}}
  - name: {STRICT_MODEL}
    endpoints: [{{url: ENGINE/v1, model: {EMBEDDING_MODEL}}}]
    token_ids: refuse
"""


@dataclass(frozen=True, slots=True)
class Platform:
    gateway: GatewayProcess
    simulator: SimulatorProcess

    @property
    def variables(self) -> dict[str, str]:
        """What `quarterdeck env` prints."""
        return {"OPENAI_BASE_URL": f"{self.gateway.url}/v1", "OPENAI_API_KEY": KEY}

    def disconnects(self) -> float:
        """Streams that were stopped by a caller, counted by the engine."""
        _, text = self.simulator.get("/metrics")
        name = "quarterdeck_simulator_client_disconnects_total"
        return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith(name))


@pytest.fixture(scope="package")
def platform(redis_server: RedisServer) -> Iterator[Platform]:
    folder = short_folder()
    options = ["--model", CHAT_MODEL, "--embedding-model", EMBEDDING_MODEL, "--inter-token-latency", "3ms"]
    simulator = SimulatorProcess(folder, options)
    simulator.start()
    database_url = f"sqlite+aiosqlite:///{folder}/quarterdeck.db"
    asyncio.run(_seed(database_url))
    addresses = {"ENGINE_URL": simulator.url, "REDIS_URL": redis_server.url(CLIENTS), "DATABASE_URL": database_url}
    config = CONFIG.replace("ENGINE", simulator.url)
    gateway = GatewayProcess(folder, config, {f"QUARTERDECK_{name}": value for name, value in addresses.items()})
    gateway.start()
    yield Platform(gateway, simulator)
    gateway.stop()
    simulator.stop()
    shutil.rmtree(folder)


async def _seed(database_url: str) -> None:
    database = Database(database_url)
    await database.migrate()
    await KeyStore(database).create(secret=KEY, name="clients")
    await database.close()
