"""Inputs and outputs through whole processes: captured, redacted, stored once, shown, followed, scored and deleted."""

import asyncio
import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from tests.faults.stack import WorkerProcess
from tests.platform import GatewayProcess, SimulatorProcess
from tests.servers import RedisServer, short_folder
from tests.telemetry.otlp_sink import OTLPSink

from quarterdeck import ids
from quarterdeck.net.redis import Redis
from quarterdeck.store.contents import ContentStore
from quarterdeck.store.database import Database
from quarterdeck.store.keys import KeyStore
from quarterdeck.store.ledger import Ledger, LedgerFilter
from quarterdeck.store.teams import TeamStore

pytestmark = pytest.mark.faults

CONFIG = """
models: [{name: chat, engine: {source: ./chat, context: 4096, tool_parser: hermes}, price: {input: "1", output: "2"}}]
content: {capture: "off"}
"""
KEPT, OTHER, ADMIN = ids.api_key(), ids.api_key(), ids.api_key()
"""Keys of the team `kept`, whose content is captured, of another team, and an admin's."""
SECRET = ids.api_key()


@dataclass(frozen=True)
class Platform:
    redis_url: str
    database_url: str
    gateway: GatewayProcess
    worker: WorkerProcess
    sink: OTLPSink

    def client(self, key: str = KEPT) -> openai.OpenAI:
        return openai.OpenAI(base_url=self.gateway.url + "/v1", api_key=key, max_retries=0, timeout=30)

    def admin(self) -> httpx.Client:
        return httpx.Client(
            base_url=self.gateway.url, headers={"authorization": f"Bearer {ADMIN}"}, trust_env=False, timeout=30
        )


@pytest.fixture(scope="module")
def platform() -> Iterator[Platform]:
    folder = short_folder()
    redis = RedisServer(folder, durable=True)
    redis.start()
    simulator = SimulatorProcess(folder, ["--model", "chat", "--inter-token-latency", "1ms"])
    simulator.start()
    database_url = f"sqlite+aiosqlite:///{folder}/quarterdeck.db"
    asyncio.run(_seed(database_url))
    sink = OTLPSink().start()
    environ = {
        "QUARTERDECK_ENGINE_URL": simulator.url,
        "QUARTERDECK_REDIS_URL": redis.url(),
        "QUARTERDECK_DATABASE_URL": database_url,
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": sink.endpoint,
        "OTEL_EXPORTER_OTLP_HEADERS": ",".join(f"{name}={value}" for name, value in sink.headers.items()),
    }
    gateway = GatewayProcess(folder, CONFIG, environ)
    gateway.start()
    paths = {"QUARTERDECK_STATE": str(folder / "state"), "QUARTERDECK_CONFIG": str(gateway.config)}
    worker = WorkerProcess(folder, {**environ, **paths})
    worker.start()
    yield Platform(redis.url(), database_url, gateway, worker, sink)
    for process in (worker, gateway, simulator):
        process.stop()
    sink.stop()
    redis.stop()
    shutil.rmtree(folder)


async def _seed(database_url: str) -> None:
    database = Database(database_url)
    await database.migrate()
    keys = KeyStore(database)
    await keys.create(secret=KEPT, name="kept", team="kept")
    await keys.create(secret=OTHER, name="other", team="other")
    await keys.create(secret=ADMIN, name="admin", is_admin=True)
    await TeamStore(database).update("kept", org="default", content="full")
    await database.close()


def eventually(look: Callable[[], Any], seconds: float = 30.0) -> Any:
    """What `look` returns once that is true."""
    until = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < until, "it never came"
        time.sleep(0.05)
    return found


def detail(admin: httpx.Client, request_id: str, *, has_content: bool = False) -> dict[str, Any]:
    """The request, once the worker has inserted it. Its content follows the row."""

    def look() -> Any:
        answer = admin.get(f"/admin/requests/{request_id}")
        found = answer.json() if answer.status_code == 200 else None
        return found if found and (found["content_details"] or not has_content) else None

    found: dict[str, Any] = eventually(look)
    return found


def test_a_conversation_from_the_sdk_to_the_log_the_trace_and_its_deletion(platform: Platform) -> None:
    asked = [{"role": "user", "content": f"My key is {SECRET}, mail bob@example.com"}]
    with platform.client() as client, platform.admin() as admin:
        whole = client.chat.completions.with_raw_response.create(
            model="chat",
            messages=asked,
            user="u-1",
            metadata={"session_id": "s-1"},  # type: ignore[arg-type]
        )
        stream = client.chat.completions.create(
            model="chat",
            messages=asked,
            stream=True,
            user="u-1",
            max_tokens=20,  # type: ignore[arg-type]
        )
        said = "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)
        streamed = stream.response.headers["x-request-id"]
        first = detail(admin, whole.headers["x-request-id"], has_content=True)
        second = detail(admin, streamed, has_content=True)
        for found in (first, second):
            assert found["input"]["messages"][0]["content"] == "My key is [api_key], mail [email]"
            assert found["content_details"]["redacted"] == {"api_key": 1, "email": 1}
            assert (found["user"], found["status"], found["content"]) == ("u-1", "ok", "full")
        answer = whole.parse().choices[0].message.content
        assert first["output"][0]["message"]["content"] == answer
        assert second["output"][0]["message"]["content"] == said
        found = admin.get("/admin/requests", params={"session": "s-1", "text": "my KEY is"}).json()
        assert [each["id"] for each in found["data"]] == [first["id"]]
        # the trace has it redacted
        platform.sink.wait_for(lambda sink: {first["trace_id"], second["trace_id"]} <= sink.observations.keys(), 30)
        texts = json.dumps([span.attributes for span in platform.sink.spans], default=str)
        assert "[api_key]" in texts
        assert SECRET not in texts
        # feedback by a key of the team, and by no other
        body = {"request_id": streamed, "thumbs": "up"}
        assert client.post("/feedback", body=body, cast_to=dict[str, Any])["status"] == "recorded"  # type: ignore[type-var]
        with platform.client(OTHER) as other, pytest.raises(openai.NotFoundError):
            other.post("/feedback", body=body, cast_to=dict[str, Any])
        assert detail(admin, streamed)["scores"][0]["thumbs"] == "up"
        # and it is gone when it is deleted
        assert admin.delete("/admin/contents", params={"user": "u-1"}).json()["deleted"] == 2
        assert detail(admin, streamed)["input"] is None
        assert detail(admin, streamed)["output_tokens"] > 0


def test_a_team_that_says_nothing_has_nothing_kept(platform: Platform) -> None:
    with platform.client(OTHER) as client, platform.admin() as admin:
        answer = client.chat.completions.with_raw_response.create(
            model="chat", messages=[{"role": "user", "content": SECRET}]
        )
        found = detail(admin, answer.headers["x-request-id"])
    assert (found["content"], found["input"], found["content_details"]) == ("off", None, None)


def test_requests_are_followed_live(platform: Platform) -> None:
    seen: list[str] = []
    is_following = threading.Event()

    def follow() -> None:
        with (
            httpx.Client(base_url=platform.gateway.url, trust_env=False, timeout=30) as client,
            client.stream(
                "GET", "/admin/requests/tail?team=kept", headers={"authorization": f"Bearer {ADMIN}"}
            ) as response,
        ):
            for line in response.iter_lines():
                is_following.set()
                if line.startswith("data: "):
                    seen.append(json.loads(line.removeprefix("data: "))["id"])
                    if len(seen) == 3:
                        return

    thread = threading.Thread(target=follow)
    thread.start()
    assert is_following.wait(20)
    asked: list[str] = []

    def ask() -> bool:
        """Requests until three were seen: the worker learns of a listener with its next batch."""
        answer = client.chat.completions.with_raw_response.create(
            model="chat", messages=[{"role": "user", "content": "Hi"}]
        )
        asked.append(answer.headers["x-request-id"])
        thread.join(0.2)
        return not thread.is_alive()

    with platform.client() as client:
        eventually(ask)
    assert seen == [each for each in asked if each in seen]


@pytest.mark.long
async def test_a_worker_killed_again_and_again_stores_each_content_once(platform: Platform, tmp_path: Path) -> None:
    client = openai.AsyncOpenAI(base_url=platform.gateway.url + "/v1", api_key=KEPT, max_retries=0, timeout=60)
    asked: list[str] = []

    async def ask(number: int) -> None:
        answer = await client.chat.completions.with_raw_response.create(
            model="chat", max_tokens=3, messages=[{"role": "user", "content": f"{number} {SECRET}"}]
        )
        asked.append(answer.headers["x-request-id"])

    for turn in range(5):
        asking = asyncio.gather(*[ask(turn * 40 + number) for number in range(40)])
        await asyncio.to_thread(platform.worker.kill)
        await asking
        platform.worker.start()  # from the main thread
    await client.close()
    database = Database(platform.database_url)
    redis = Redis(platform.redis_url)
    store, where = ContentStore(database), LedgerFilter(org="default", team="kept")

    async def is_complete() -> bool:
        rows = {record.id for record in await Ledger(database).list(where, limit=10_000)}
        return set(asked) <= rows and len(await store.retrieve(asked, org="default")) == len(asked)

    async with asyncio.timeout(60):
        while not await is_complete():  # noqa: ASYNC110  # it changes in another process
            await asyncio.sleep(0.1)
    for content in (await store.retrieve(asked, org="default")).values():
        assert SECRET.encode() not in (content.input or b"")
        assert b"[api_key]" in (content.input or b"")
    assert await redis.call("KEYS", "content:*") == []
    await redis.close()
    await database.close()
