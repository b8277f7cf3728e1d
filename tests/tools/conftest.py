"""A platform whose operator has listed MCP servers: of the official SDK, over both transports, in processes."""

import asyncio
import http.client
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import openai
import pytest
from tests.platform import DoorProcess, GatewayProcess, SimulatorProcess
from tests.servers import TOOLS, RedisServer, short_folder, wait_until

from quarterdeck.accounting.redis_keys import stream_key
from quarterdeck.net.redis import Redis
from quarterdeck.record import RequestRecord, decode
from quarterdeck.store.database import Database
from quarterdeck.store.keys import KeyStore

KEY = "sk-qd-tools"
CONFIG = """
models:
  - name: chat
    engine: {source: ./chat, context: 8192, tool_parser: hermes}
    price: {input: "1", output: "2"}
tools:
  list_timeout_seconds: 60
  call_timeout_seconds: 30
  max_result_kb: 1
  mcp_servers:
    - {label: calc, url: HTTP/mcp, api_key_env: CALC_TOKEN}
    - {label: narrow, url: SSE/sse?narrow, allowed_tools: [add]}
    - {label: calc_sse, url: SSE/sse, timeout_seconds: 1}
    - {label: refused, url: HTTP/mcp?other}
    - {label: gone, url: "http://127.0.0.1:1/mcp"}
    - {label: elsewhere, url: SSE/sse?other, orgs: [another]}
  http_apis:
    - {label: things, spec: things.yaml, url: HTTP, operations: [getThing, putThing], api_key_env: CALC_TOKEN}
    - {label: broken, spec: nothing.yaml, url: HTTP, operations: [getThing]}
"""
THINGS = """
openapi: 3.1.0
info: {title: Things, version: "1"}
paths:
  /things/{id}:
    parameters: [{$ref: "#/components/parameters/id"}]
    get:
      operationId: getThing
      summary: One thing.
      parameters: [{name: tag, in: query, schema: {type: array, items: {type: string}}}]
    put:
      operationId: putThing
      requestBody:
        required: true
        content: {application/json: {schema: {$ref: "#/components/schemas/Thing"}}}
    delete: {operationId: deleteThing}
components:
  parameters:
    id: {name: id, in: path, required: true, schema: {type: string, enum: ["a/../b"]}}
  schemas:
    Thing: {type: object, required: [name], properties: {name: {type: string, const: "x"}}}
"""


class McpServerProcess(DoorProcess):
    def __init__(self, folder: Path, kind: str, *, needs_token: bool = False) -> None:
        super().__init__(folder, f"mcp-{kind}", "/")
        self._kind = kind
        self._needs_token = needs_token

    def command(self) -> list[str]:
        token = ["NEEDS_TOKEN=1"] if self._needs_token else []
        return [
            "env",
            *token,
            sys.executable,
            str(Path(__file__).with_name("mcp_server.py")),
            self._kind,
            str(self.port),
        ]

    def answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log.read_text(errors="replace")[-4000:]
        try:
            self.get("/nothing")
        except (OSError, http.client.HTTPException):
            return False
        return True


@dataclass(frozen=True, slots=True)
class Platform:
    gateway: GatewayProcess
    simulator: SimulatorProcess
    redis_url: str
    server: McpServerProcess
    server_sse: McpServerProcess

    def client(self) -> openai.OpenAI:
        return openai.OpenAI(
            base_url=f"{self.gateway.url}/v1",
            api_key=KEY,
            max_retries=0,
            _strict_response_validation=True,
        )

    def records(self, response: str, count: int) -> list[RequestRecord]:
        """Wait for the records of a response's engine calls and tool calls."""
        found: list[RequestRecord] = []

        def are_there() -> bool:
            found[:] = [each for each in asyncio.run(self._records()) if each.parent == response]
            return len(found) >= count

        wait_until(are_there, seconds=20, what=lambda: f"{len(found)} records of {response}")
        return sorted(found, key=lambda each: each.started)

    async def _records(self) -> list[RequestRecord]:
        redis = Redis(self.redis_url)
        try:
            entries = await redis.call("XREVRANGE", stream_key("default"), "+", "-", "COUNT", 100)
        finally:
            await redis.close()
        return [decode(fields[1]) for _, fields in entries]


@pytest.fixture(scope="package")
def platform(redis_server: RedisServer) -> Iterator[Platform]:
    folder = short_folder()
    server = McpServerProcess(folder, "streamable-http", needs_token=True)
    server_sse = McpServerProcess(folder, "sse")
    options = ["--model", "chat", "--inter-token-latency", "1ms", "--enable-auto-tool-choice"]
    simulator = SimulatorProcess(folder, options)
    for process in (server, server_sse, simulator):
        process.launch()
    redis_url, database_url = redis_server.url(TOOLS), f"sqlite+aiosqlite:///{folder}/quarterdeck.db"
    asyncio.run(_seed(database_url))
    addresses = {"ENGINE_URL": simulator.url, "REDIS_URL": redis_url, "DATABASE_URL": database_url}
    variables = {f"QUARTERDECK_{name}": value for name, value in addresses.items()} | {"CALC_TOKEN": "secret"}
    config = CONFIG.replace("HTTP", server.url).replace("SSE", server_sse.url)
    (folder / "things.yaml").write_text(THINGS)
    gateway = GatewayProcess(folder, config, variables)
    gateway.launch()
    for process in (server, server_sse, simulator, gateway):
        wait_until(process.answers, seconds=180, what=process.log.read_text)
    yield Platform(gateway, simulator, redis_url, server, server_sse)
    for process in (gateway, simulator, server, server_sse):
        process.stop()
    shutil.rmtree(folder)


@pytest.fixture
def client(platform: Platform) -> Iterator[openai.OpenAI]:
    with platform.client() as made:
        yield made


async def _seed(database_url: str) -> None:
    database = Database(database_url)
    await database.migrate()
    await KeyStore(database).create(secret=KEY, name="tools")
    await database.close()
