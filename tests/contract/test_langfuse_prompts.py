"""Prompts of a Langfuse project served to the SDK's users, as real processes; conflicts decided by command."""

import asyncio
import json
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openai
import pytest
from click.testing import CliRunner
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from tests.platform import GatewayProcess, SimulatorProcess
from tests.servers import RedisServer, short_folder, wait_until
from tests.telemetry.otlp_sink import spans_of
from tests.worker.langfuse_server import LangfuseServer
from tests.worker.process import WorkerProcess

from quarterdeck.cli import credentials
from quarterdeck.cli.__main__ import cli
from quarterdeck.store.database import Database
from quarterdeck.store.keys import KeyStore

CONFIG = """
models:
  - name: chat
    engine: {source: ./chat, context: 4096}
gateway: {retries: 0}
langfuse: {prompts: both, interval_seconds: 5}
"""


@dataclass(frozen=True, slots=True)
class Platform:
    folder: Path
    server: LangfuseServer
    gateway: GatewayProcess
    key: str

    def run(self, *words: str) -> str:
        environ = {"QUARTERDECK_STATE": str(self.folder), "COLUMNS": "300"}
        done = CliRunner().invoke(cli, words, env=environ)
        assert done.exit_code == 0, done.output
        return done.output

    def link(self, name: str) -> Any:
        return json.loads(self.run("prompts", "sync", name, "--json"))

    def used_prompt(self) -> str:
        """Chat with the prompt `greet` as soon as the gateway has heard of it. Returns the version that was used."""
        url = self.gateway.url + "/v1"
        found: list[str] = []

        def is_known() -> bool:
            with suppress(openai.NotFoundError):
                answer = client.chat.completions.with_raw_response.create(
                    model="prompt:greet", messages=[], extra_body={"prompt": {"variables": {"name": "Ann"}}}
                )
                found.append(answer.headers["x-quarterdeck-prompt"])
            return bool(found)

        with openai.OpenAI(base_url=url, api_key=self.key, max_retries=0, timeout=20.0) as client:
            wait_until(is_known)
        return found[0]

    def links(self) -> dict[str, Any]:
        return {each["name"]: each for each in json.loads(self.run("prompts", "sync", "--json"))}


@pytest.fixture
def platform() -> Iterator[Platform]:
    folder = short_folder()
    redis = RedisServer(folder)
    redis.start()
    simulator = SimulatorProcess(folder, ["--model", "chat", "--inter-token-latency", "0ms"])
    simulator.start()
    with LangfuseServer() as server:
        shared = {
            "QUARTERDECK_ENGINE_URL": simulator.url,
            "QUARTERDECK_REDIS_URL": redis.url(),
            "QUARTERDECK_DATABASE_URL": f"sqlite+aiosqlite:///{folder}/quarterdeck.db",
        }
        langfuse = {"LANGFUSE_HOST": server.url, "LANGFUSE_PUBLIC_KEY": "pk-lf-1", "LANGFUSE_SECRET_KEY": "sk-lf-2"}
        gateway = GatewayProcess(folder, CONFIG, shared, "one")
        gateway.start()
        user, _ = credentials.ensure(folder, gateway.url + "/v1")
        asyncio.run(_keys(shared["QUARTERDECK_DATABASE_URL"], user.api_key, user.admin_key))
        worker = WorkerProcess(
            folder / "state", {**shared, **langfuse, "QUARTERDECK_CONFIG": str(gateway.config), "NO_PROXY": "*"}
        )
        worker.wait_until_started()
        yield Platform(folder, server, gateway, user.api_key)
        worker.terminate()
        gateway.stop()
        simulator.stop()
        redis.stop()
    shutil.rmtree(folder)


async def _keys(database_url: str, key: str, admin_key: str) -> None:
    database = Database(database_url)
    await database.migrate()
    keys = KeyStore(database)
    await keys.create(secret=key, name="user", team="red")
    await keys.create(secret=admin_key, name="admin", is_admin=True)
    await database.close()


def test_a_prompt_of_langfuse_serves_is_linked_in_traces_and_its_conflict_is_decided(platform: Platform) -> None:
    server = platform.server
    server.create("greet", "old")
    server.create("greet", "Hello {{ name }}!", ("production",), {"model": "chat", "max_tokens": 3})
    server.delete_version("greet", 1)
    wait_until(lambda: platform.links().get("greet", {}).get("labels") == {"production": 1})
    assert platform.used_prompt() == "greet@1"
    wait_until(lambda: ("greet", 2) in _linked(server))
    assert _linked(server) == [("greet", 2)]

    platform.run("prompts", "sync")
    server.create("greet", "Hi {{ name }}!", ("production",))
    platform.run("prompts", "label", "greet", "mine", "1")
    wait_until(lambda: platform.link("greet")["labels"] == {"production": 2})
    assert platform.link("greet")["versions"] == [{"ours": 1, "theirs": 2}, {"ours": 2, "theirs": 3}]

    platform.run("prompts", "rollback", "greet", "production")
    wait_until(lambda: platform.link("greet")["state"] == "conflict")
    assert "the label production is at version 1 here and is at version 3 at Langfuse" in platform.run(
        "prompts", "sync", "greet"
    )
    assert "sync.conflict" in platform.run("prompts", "events", "greet")
    assert server.labels("greet") == {"production": 3}
    platform.run("prompts", "sync", "greet", "--keep", "ours")
    wait_until(lambda: platform.link("greet")["state"] == "synchronised")
    assert server.labels("greet") == {"production": 2}


def _linked(server: LangfuseServer) -> list[tuple[str, int]]:
    spans = [
        span
        for export in server.traces
        for resource in ExportTraceServiceRequest.FromString(export).resource_spans
        for scope in resource.scope_spans
        for span in spans_of(scope.SerializeToString())
    ]
    return [span.observation.prompt for span in spans if span.observation.prompt is not None]
