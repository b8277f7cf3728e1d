"""One platform for all contract tests: redis-server, a simulated engine and a gateway as processes."""

import asyncio
import shutil
import time
from collections.abc import AsyncIterator, Iterator

import openai
import pytest
from tests.accounting.spending import a_scope, trust
from tests.contract.platform import ADMIN, EXPIRED, NARROW, PAINTS, POOR, REVOKED, SLOW, USER, WARNED, Platform
from tests.platform import GatewayProcess, SimulatorProcess
from tests.servers import CONTRACT, RedisServer, short_folder

from quarterdeck.net.redis import Redis
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
  - name: whisper
    aliases: [whisper-1]
    engine: {source: ./whisper}
    serves: [audio.transcriptions, audio.translations]
    price: {audio_second: "0.0001"}
  - name: tts
    engine: {source: ./tts}
    serves: [audio.speech]
    price: {thousand_characters: "0.015"}
  - name: painter
    engine: {source: ./painter}
    serves: [images.generations, images.edits]
    price: {image: "0.02", output: "1"}
  - name: lost-tts
    endpoints: [{url: "http://127.0.0.1:9"}]
    serves: [audio.speech]
    price: {thousand_characters: "0.001"}
routes:
  - name: speaker
    targets: [{model: lost-tts}]
    fallbacks: [{model: chat, after: [error]}, {model: tts, after: [error]}]
cache:
  policies: {chat: {exact: true}}
moderations: {model: org/emb, labels: [none, violence]}
gateway:
  forward_headers: [x-fault]
  retries: 0
"""


@pytest.fixture(scope="session")
def platform(redis_server: RedisServer) -> Iterator[Platform]:
    folder = short_folder()
    redis_url = redis_server.url(CONTRACT)
    simulator = SimulatorProcess(
        folder,
        [
            *("--model", "chat", "--embedding-model", "org/emb", "--inter-token-latency", "2ms"),
            *("--media-model", "whisper", "tts", "painter"),
        ],
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
    row = await keys.create(secret=PAINTS, name="paints", budget=a_scope("", 80_000).budget)
    await trust(redis, a_scope(f"key:{row.id}", 80_000))
    await redis.close()
    await database.close()
