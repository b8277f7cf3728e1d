"""Commands while a gateway is shutting down."""

import asyncio
import http.client
import json
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import httpx
import pytest
from click.testing import CliRunner, Result
from tests.platform import GatewayProcess, SimulatorProcess
from tests.servers import short_folder, wait_until

from quarterdeck.cli.__main__ import cli
from quarterdeck.cli.client import json_object
from quarterdeck.cli.patient_client import ATTEMPTS, PatientClient
from quarterdeck.store.database import Database
from quarterdeck.store.keys import KeyStore

KEY = "sk-qd-" + "d" * 40
REFUSAL = {"error": {"message": "The gateway is shutting down.", "type": "server_error", "code": "shutting_down"}}
CONFIG = "models: [{name: chat, engine: {source: ./chat}}]\ngateway: {drain_seconds: 300}\n"


class Server:
    """Refuses, or closes the connection, as often as it has `failures`; then it answers."""

    def __init__(self, *failures: int | Exception, refusal: Any = REFUSAL) -> None:
        self.failures, self.refusal = list(failures), refusal
        self.methods: list[str] = []

    def handle(self, request: httpx.Request) -> httpx.Response:
        self.methods.append(request.method)
        failure = self.failures.pop(0) if self.failures else None
        if isinstance(failure, Exception):
            raise failure
        if failure is None:
            return httpx.Response(200, json={"id": "x"})
        return httpx.Response(failure, json=self.refusal)

    def client(self) -> PatientClient:
        return PatientClient(base_url="http://gateway", transport=httpx.MockTransport(self.handle))


@pytest.fixture(autouse=True)
def no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PatientClient, "wait_seconds", 0.0)


def test_a_read_is_repeated_until_a_gateway_answers(capsys: pytest.CaptureFixture[str]) -> None:
    server = Server(503, httpx.RemoteProtocolError("Server disconnected without sending a response."), 503)
    assert server.client().get("/v1/models").status_code == 200
    assert server.methods == ["GET"] * 4
    assert capsys.readouterr().err == "the gateway is shutting down; trying again\n"


def test_a_change_is_sent_once_and_says_what_to_do() -> None:
    server = Server(503)
    with pytest.raises(click.ClickException, match=r"^the gateway at http://gateway is shutting down: send it again"):
        json_object(server.client().post("/admin/keys", json={}))
    assert server.methods == ["POST"]


def test_a_gateway_that_only_refuses_is_asked_a_few_times() -> None:
    server = Server(*[503] * 100)
    with pytest.raises(click.ClickException, match="is shutting down"):
        json_object(server.client().get("/v1/models"))
    assert len(server.methods) == ATTEMPTS


def test_a_closed_connection_is_named_and_a_server_that_speaks_no_http_is_asked_once(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert Server(httpx.ReadError("reset")).client().get("/v1/models").status_code == 200
    assert capsys.readouterr().err == "the gateway closed the connection; trying again\n"
    server = Server(httpx.RemoteProtocolError("illegal status line: bytearray(b'SSH-2.0')"))
    with pytest.raises(httpx.RemoteProtocolError):
        server.client().get("/v1/models")
    assert server.methods == ["GET"]


@pytest.mark.parametrize("refusal", [{"error": {"code": "overloaded"}}, {"error": None}, ["shutting_down"], "no"])
def test_other_refusals_are_not_repeated(refusal: Any) -> None:
    server = Server(503, refusal=refusal)
    assert server.client().get("/v1/models").status_code == 503
    assert server.methods == ["GET"]


@pytest.fixture
def folder() -> Iterator[Path]:
    made = short_folder()
    yield made
    shutil.rmtree(made)


async def _seed(url: str) -> None:
    database = Database(url)
    await database.migrate()
    await KeyStore(database).create(secret=KEY, name="boss", is_admin=True)
    await database.close()


def test_a_gateway_that_drains_is_said_to(folder: Path, redis_url: str) -> None:
    database = f"sqlite+aiosqlite:///{folder}/quarterdeck.db"
    asyncio.run(_seed(database))
    simulator = SimulatorProcess(folder, ["--model", "chat", "--inter-token-latency", "200ms"])
    parts = {"QUARTERDECK_REDIS_URL": redis_url, "QUARTERDECK_DATABASE_URL": database}
    gateway = GatewayProcess(folder, CONFIG, {**parts, "QUARTERDECK_ENGINE_URL": simulator.url})
    environ = {"QUARTERDECK_STATE": str(folder / "none"), "QUARTERDECK_CONTEXTS": str(folder / "contexts.toml")}

    def run(*words: str) -> Result:
        return CliRunner().invoke(cli, ["--url", gateway.url, "--key", KEY, *words], env=environ)

    try:
        simulator.start()
        gateway.start()
        stream = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=60)
        body = {"model": "chat", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 1500}
        headers = {"authorization": f"Bearer {KEY}", "content-type": "application/json"}
        stream.request(
            "POST", "/v1/chat/completions", json.dumps({**body, "stream": True, "ignore_eos": True}), headers
        )
        assert stream.getresponse().readline().startswith(b"data: ")  # it keeps the gateway from ending
        assert gateway.process is not None
        gateway.process.send_signal(signal.SIGTERM)
        wait_until(lambda: gateway.get("/readyz")[1].get("status") == "draining")
        status = run("status")
        assert (status.exit_code, status.stdout.startswith("gateway: draining")) == (1, True)
        for words in (("models", "list"), ("keys", "create", "x"), ("chat", "-m", "chat", "hello")):
            done = run(*words)
            refusal = f"Error: the gateway at {gateway.url} is shutting down: send it again"
            assert (done.exit_code, done.stdout) == (1, ""), words
            assert done.stderr.splitlines()[-1].startswith(refusal), words
        stream.close()
        gateway.process.wait(60)
        assert f"cannot connect to {gateway.url}" in run("models", "list").stderr
    finally:
        gateway.stop()
        simulator.stop()
