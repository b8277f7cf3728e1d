"""A platform for tests of prompts: two gateways and a worker over one PostgreSQL, with an engine behind them."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import openai
from click.testing import CliRunner, Result
from tests.platform import GatewayProcess, SimulatorProcess
from tests.servers import PostgresServer, RedisServer
from tests.worker.process import WorkerProcess

from quarterdeck.cli.__main__ import cli

PATH = "/v1/prompts"
CONFIG = """
models:
  - name: chat
    engine: {source: ./chat, context: 4096}
    price: {input: "1", cached_input: "0.5", output: "2"}
gateway: {retries: 0, forward_headers: [x-fault]}
"""


@dataclass(frozen=True, slots=True)
class Prompted:
    """The parts, and this user's keys."""

    folder: Path
    redis: RedisServer
    postgres: PostgresServer
    simulator: SimulatorProcess
    gateways: tuple[GatewayProcess, GatewayProcess]
    worker: WorkerProcess
    key: str
    admin_key: str

    def client(self, gateway: int = 0) -> openai.OpenAI:
        """The real SDK, strict and without retries."""
        return openai.OpenAI(
            base_url=self.gateways[gateway].url + "/v1",
            api_key=self.key,
            max_retries=0,
            timeout=20.0,
            _strict_response_validation=True,
        )

    def ask(self, method: str, path: str, body: Mapping[str, Any] | None = None, *, gateway: int = 0) -> Any:
        """The JSON of a successful request with the admin's key."""
        answer = httpx.request(
            method,
            self.gateways[gateway].url + path,
            json=body,
            headers={"authorization": f"Bearer {self.admin_key}"},
            timeout=20.0,
        )
        assert answer.is_success, answer.text
        return answer.json()

    def run(self, *words: str) -> Result:
        """A command of `quarterdeck`, as this user."""
        environ = {"QUARTERDECK_STATE": str(self.folder), "COLUMNS": "200"}
        done = CliRunner().invoke(cli, words, env=environ)
        assert "Traceback" not in done.output
        return done

    def version_used(self, prompt: Mapping[str, Any], *, gateway: int = 0, **fields: Any) -> str:
        """The version that a request's answer names."""
        with self.client(gateway) as client:
            return version_used(client, prompt, **fields)

    def stop(self) -> None:
        self.worker.terminate()
        for gateway in self.gateways:
            gateway.stop()
        self.simulator.stop()
        self.redis.stop()


def version_used(client: openai.OpenAI, prompt: Mapping[str, Any], **fields: Any) -> str:
    answer = client.chat.completions.with_raw_response.create(
        messages=[], model=fields.pop("model", "chat"), extra_body={"prompt": prompt}, **fields
    )
    assert answer.parse().choices[0].message.content
    return str(answer.headers["x-quarterdeck-prompt"])
