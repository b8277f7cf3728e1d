"""One platform for all contract tests: redis-server, a simulated engine and a gateway, each a process of its own."""

import asyncio
import shutil
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

import openai
import pytest
from tests.accounting.spending import a_scope, trust
from tests.platform import GatewayProcess, SimulatorProcess
from tests.servers import CONTRACT, RedisServer, short_folder, wait_until

from quarterdeck.accounting.redis_keys import stream_key
from quarterdeck.net.redis import Redis
from quarterdeck.record import RequestRecord, decode
from quarterdeck.settings.limits import Limits
from quarterdeck.store.database import Database
from quarterdeck.store.keys import KeyStore

CONFIG = """
models:
  - name: chat
    aliases: [gpt-4o-mini]
    engine: {source: ./chat, context: 4096, tool_parser: hermes, max_adapters: 2}
    price: {input: "1", cached_input: "0.5", output: "2"}
  - name: org/emb
    engine: {source: ./emb, task: embed}
cache:
  policies: {chat: {exact: true}}
gateway:
  forward_headers: [x-fault]
  retries: 0
"""

USER, ADMIN, NARROW, SLOW, REVOKED, EXPIRED, POOR, WARNED = (
    f"sk-qd-{name}" for name in ("user", "admin", "narrow", "slow", "revoked", "expired", "poor", "warned")
)


@dataclass(frozen=True, slots=True)
class Platform:
    """Where it is, and what it holds."""

    simulator: SimulatorProcess
    gateway: GatewayProcess
    redis_url: str

    @property
    def base_url(self) -> str:
        return self.gateway.url + "/v1"

    def client(self, key: str = USER, **options: object) -> openai.OpenAI:
        """The real SDK, as strict as it can be, without its retries."""
        return openai.OpenAI(**self._options(key, options))  # type: ignore[arg-type]

    def async_client(self, key: str = USER, **options: object) -> openai.AsyncOpenAI:
        return openai.AsyncOpenAI(**self._options(key, options))  # type: ignore[arg-type]

    def record(self, request_id: str) -> RequestRecord:
        """The request's record in the ledger stream, once it is there."""
        found: list[RequestRecord] = []

        def is_there() -> bool:
            found.extend(r for r in asyncio.run(self._records()) if r.id == request_id)
            return bool(found)

        wait_until(is_there, seconds=5, what=lambda: f"no record of {request_id}")
        assert len(found) == 1
        return found[0]

    async def _records(self) -> list[RequestRecord]:
        redis = Redis(self.redis_url)
        try:
            entries = await redis.call("XREVRANGE", stream_key("default"), "+", "-", "COUNT", 50)
        finally:
            await redis.close()
        return [decode(fields[1]) for _, fields in entries]

    def _options(self, key: str, options: dict[str, object]) -> dict[str, object]:
        defaults = {"max_retries": 0, "timeout": 20.0, "_strict_response_validation": True}
        return {"base_url": self.base_url, "api_key": key, **defaults, **options}


@pytest.fixture(scope="session")
def platform(redis_server: RedisServer) -> Iterator[Platform]:
    folder = short_folder()
    redis_url = redis_server.url(CONTRACT)
    simulator = SimulatorProcess(
        folder, ["--model", "chat", "--embedding-model", "org/emb", "--inter-token-latency", "2ms"]
    )
    simulator.start()
    database_url = f"sqlite+aiosqlite:///{folder}/quarterdeck.db"
    asyncio.run(_seed(database_url, redis_url))
    gateway = GatewayProcess(
        folder,
        CONFIG,
        {
            "QUARTERDECK_ENGINE_URL": simulator.url,
            "QUARTERDECK_REDIS_URL": redis_url,
            "QUARTERDECK_DATABASE_URL": database_url,
        },
    )
    gateway.start()
    yield Platform(simulator, gateway, redis_url)
    gateway.stop()
    simulator.stop()
    shutil.rmtree(folder)


@pytest.fixture
def client(platform: Platform) -> Iterator[openai.OpenAI]:
    with platform.client() as made:
        yield made


@pytest.fixture
async def async_client(platform: Platform) -> AsyncIterator[openai.AsyncOpenAI]:
    async with platform.async_client() as made:
        yield made


async def _seed(database_url: str, redis_url: str) -> None:
    database = Database(database_url)
    await database.migrate()
    keys = KeyStore(database)
    await keys.create(secret=USER, name="user")
    await keys.create(secret=ADMIN, name="admin", is_admin=True)
    await keys.create(secret=NARROW, name="narrow", models=["org/emb"])
    await keys.create(secret=SLOW, name="slow", limits=Limits(requests_per_minute=1))
    await keys.create(secret=EXPIRED, name="expired", expires=time.time() - 1)
    revoked = await keys.create(secret=REVOKED, name="revoked")
    await keys.revoke(revoked.id)
    redis = Redis(redis_url)
    await redis.call("FLUSHDB")
    for secret, warns in ((POOR, False), (WARNED, True)):
        budget = a_scope("", 1, warns=warns).budget
        row = await keys.create(secret=secret, name=secret, budget=budget)
        await trust(redis, a_scope(f"key:{row.id}", 1), spent=1)
    await redis.close()
    await database.close()
