"""The gateway as a process: start, drain, reload, and outages of Redis and the database."""

import asyncio
import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.platform import GatewayProcess, SimulatorProcess, free_port
from tests.servers import RedisServer, short_folder, wait_until

from quarterdeck.accounting.redis_keys import stream_key
from quarterdeck.net.redis import Redis
from quarterdeck.record import RequestRecord, decode
from quarterdeck.store.database import Database
from quarterdeck.store.keys import KeyStore

CONFIG = """
models:
  - name: chat
    engine: {{source: ./chat}}
gateway: {{drain_seconds: {drain}, shutdown_delay_seconds: {delay}, retries: 0}}
"""
USER, ADMIN = "sk-qd-user", "sk-qd-admin"
ASK: dict[str, Any] = {"model": "chat", "messages": [{"role": "user", "content": "hi"}], "ignore_eos": True}

Start = Callable[..., GatewayProcess]


@pytest.fixture(scope="module")
def simulator() -> Iterator[SimulatorProcess]:
    folder = short_folder()
    made = SimulatorProcess(folder, ["--model", "chat", "--inter-token-latency", "10ms"])
    made.start()
    yield made
    made.stop()
    shutil.rmtree(folder)


@pytest.fixture
def folder() -> Iterator[Path]:
    made = short_folder()
    yield made
    shutil.rmtree(made)


@pytest.fixture
def start(folder: Path, simulator: SimulatorProcess, redis_url: str) -> Iterator[Start]:
    """Starts gateways that share a database and a Redis server."""
    database_url = f"sqlite+aiosqlite:///{folder}/quarterdeck.db"
    asyncio.run(_seed(database_url))
    started: list[GatewayProcess] = []

    def begin(drain: float = 20, ready_path: str = "/readyz", delay: float = 0, **environ: str) -> GatewayProcess:
        parts = {
            "QUARTERDECK_ENGINE_URL": simulator.url,
            "QUARTERDECK_REDIS_URL": redis_url,
            "QUARTERDECK_DATABASE_URL": database_url,
            **environ,
        }
        name = f"gateway{len(started)}"
        config = CONFIG.format(drain=drain, delay=delay)
        made = GatewayProcess(folder, config, parts, name=name, ready_path=ready_path)
        started.append(made)
        made.start()
        return made

    yield begin
    for gateway in started:
        gateway.stop()


async def _seed(database_url: str) -> None:
    database = Database(database_url)
    await database.migrate()
    keys = KeyStore(database)
    await keys.ensure(secret=USER, name="user")
    await keys.ensure(secret=ADMIN, name="admin", is_admin=True)
    await database.close()


class Call:
    """A kept connection; a stream is read by the test."""

    def __init__(self, gateway: GatewayProcess, key: str = USER) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=20)
        self._headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
        self.closed = False
        """Whether the last answer asked to close the connection."""

    def request(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        self._connection.request(method, path, None if body is None else json.dumps(body), self._headers)
        response = self._connection.getresponse()
        self.closed = response.getheader("connection") == "close"
        return response.status, json.loads(response.read())

    def chat(self, **changes: Any) -> tuple[int, Any]:
        return self.request("POST", "/v1/chat/completions", {**ASK, "max_tokens": 2, **changes})

    def stream(self, tokens: int) -> http.client.HTTPResponse:
        """A stream whose first event was received."""
        body = json.dumps({**ASK, "max_tokens": tokens, "stream": True})
        self._connection.request("POST", "/v1/chat/completions", body, self._headers)
        response = self._connection.getresponse()
        self.closed = response.getheader("connection") == "close"
        assert response.readline().startswith(b"data: ")
        return response

    def close(self) -> None:
        self._connection.close()


@pytest.fixture
def call() -> Iterator[Callable[..., Call]]:
    made: list[Call] = []

    def begin(gateway: GatewayProcess, key: str = USER) -> Call:
        made.append(Call(gateway, key))
        return made[-1]

    yield begin
    for one in made:
        one.close()


def records(redis_url: str) -> list[RequestRecord]:
    async def read() -> list[Any]:
        redis = Redis(redis_url)
        try:
            return list(await redis.call("XRANGE", stream_key("default"), "-", "+"))
        finally:
            await redis.close()

    return [decode(fields[1]) for _, fields in asyncio.run(read())]


def end(gateway: GatewayProcess) -> int:
    """Wait for the process to exit; its status."""
    process = gateway.process
    assert process is not None
    return process.wait(20)


def test_sigterm_lets_a_stream_end_and_takes_nothing_new(
    start: Start, call: Callable[..., Call], redis_url: str
) -> None:
    gateway = start()
    stream = call(gateway).stream(100)
    assert gateway.process is not None
    gateway.process.send_signal(signal.SIGTERM)
    wait_until(lambda: gateway.get("/readyz")[0] == 503)
    assert gateway.get("/readyz")[1]["status"] == "draining"
    status, body = call(gateway).chat()
    assert (status, body["error"]["code"]) == (503, "shutting_down")
    assert stream.read().endswith(b"data: [DONE]\n\n")
    assert end(gateway) == 0
    (record,) = records(redis_url)
    assert (record.status, record.output_tokens) == ("ok", 100)


def test_during_the_shutdown_delay_every_request_is_served_and_its_connection_closed(
    start: Start, call: Callable[..., Call]
) -> None:
    gateway = start(delay=60)
    kept, read, streamed = call(gateway), call(gateway), call(gateway)
    assert kept.chat()[0] == read.request("GET", "/v1/models")[0] == 200
    stream = streamed.stream(100)
    assert gateway.process is not None
    gateway.process.send_signal(signal.SIGTERM)
    wait_until(lambda: gateway.get("/readyz")[0] == 503)
    for one, method, path, body in (
        (kept, "POST", "/v1/chat/completions", {**ASK, "max_tokens": 2}),
        (call(gateway), "POST", "/v1/chat/completions", {**ASK, "max_tokens": 2}),
        (read, "GET", "/v1/models", None),
        (call(gateway), "GET", "/v1/models", None),
    ):
        assert one.request(method, path, body)[0] == 200
        assert one.closed
    assert stream.read().endswith(b"data: [DONE]\n\n")
    assert not streamed.closed  # its answer began before: its client may send another request on it
    assert streamed.chat()[0] == 200
    assert streamed.closed
    gateway.process.send_signal(signal.SIGTERM)
    assert end(gateway) == 0


def test_who_is_still_there_at_the_end_of_the_drain_is_told_and_recorded(
    start: Start, call: Callable[..., Call], redis_url: str, simulator: SimulatorProcess
) -> None:
    gateway = start(drain=0.2)
    stream = call(gateway).stream(4000)
    assert gateway.process is not None
    gateway.process.send_signal(signal.SIGTERM)
    last = stream.read().strip().split(b"\n\n")[-1]
    assert json.loads(last.removeprefix(b"data: "))["error"]["code"] == "shutting_down"
    assert end(gateway) == 0
    (record,) = records(redis_url)
    assert record.status == "cancelled"
    assert 0 < record.output_tokens < 4000
    wait_until(lambda: simulator.running() == 0, seconds=1)


def test_a_gateway_that_can_save_a_record_nowhere_exits_with_1_and_counts_it(
    start: Start, call: Callable[..., Call], own_redis_server: RedisServer, folder: Path
) -> None:
    gateway = start(QUARTERDECK_REDIS_URL=own_redis_server.url())
    client = call(gateway)
    assert client.chat()[0] == 200
    own_redis_server.stop()
    spool = folder / "state" / "spool"
    shutil.rmtree(spool)
    spool.write_text("a file where the folder should be: every write fails")
    answered = 0
    while (status := client.chat()[0]) == 200:
        answered += 1
        assert answered < 100, "requests go on although their records can be saved nowhere"
    assert status == 503
    assert answered
    assert gateway.process is not None
    gateway.process.send_signal(signal.SIGTERM)
    assert end(gateway) == 1
    lost = [line["message"] for line in gateway.log_lines() if line["level"] == "critical"]
    assert lost[-1] == f"{answered} records are lost: they are neither in Redis nor on disk"


def test_a_configured_endpoint_that_is_down_or_without_its_key_is_not_called_ready(start: Start) -> None:
    gateway = start()
    port = free_port()
    gateway.config.write_text(
        CONFIG.format(drain=1, delay=0).replace(
            "gateway:",
            f"""  - {{name: down, endpoints: [{{url: "http://127.0.0.1:{port}"}}]}}
  - {{name: keyless, endpoints: [{{url: "{gateway.url}", api_key_env: NO_SUCH_KEY}}]}}
gateway:""",
        )
    )
    wait_until(lambda: gateway.get("/readyz")[1]["models"].get("down", {}).get("state") == "resting")
    status, report = gateway.get("/readyz")
    assert (status, report["status"]) == (200, "degraded")
    assert "refused" in report["models"]["down"]["detail"] or "failed" in report["models"]["down"]["detail"]
    assert report["models"]["keyless"] == {
        "state": "unavailable",
        "detail": "environment variable NO_SUCH_KEY is not set",
        "task": "generate",
    }


def test_a_second_signal_ends_the_waiting(start: Start, call: Callable[..., Call]) -> None:
    gateway = start(drain=60)
    stream = call(gateway).stream(4000)
    assert gateway.process is not None
    gateway.process.send_signal(signal.SIGINT)
    wait_until(lambda: gateway.get("/readyz")[0] == 503)
    gateway.process.send_signal(signal.SIGINT)
    assert end(gateway) == 0
    assert b"shutting_down" in stream.read()


def test_a_changed_file_is_in_force_within_seconds_and_a_bad_one_is_not(
    start: Start, call: Callable[..., Call]
) -> None:
    gateway = start()
    client = call(gateway)
    good = CONFIG.format(drain=20, delay=0)
    gateway.config.write_text(good.replace("- name: chat\n", "- name: chat\n    aliases: [other]\n"))
    wait_until(lambda: client.request("GET", "/v1/models/other")[0] == 200)
    gateway.config.write_text(good + "nonsense: 1\n")
    wait_until(lambda: gateway.get("/readyz")[1]["parts"]["config"].startswith("refused"))
    assert "gateway0.yaml:6: nonsense" in gateway.get("/readyz")[1]["parts"]["config"]
    assert client.chat(model="other")[0] == 200
    assert 'quarterdeck_config_reloads_total{outcome="refused"} 1' in gateway.get("/metrics")[1]
    gateway.config.write_text(good)
    wait_until(lambda: client.request("GET", "/v1/models/other")[0] == 404)
    assert gateway.get("/readyz")[1]["parts"]["config"] == "ready"


def test_metrics_tell_whether_changes_are_heard(start: Start, own_redis_server: RedisServer) -> None:
    gateway = start(QUARTERDECK_REDIS_URL=own_redis_server.url())
    wait_until(lambda: "quarterdeck_subscription_up 1\n" in gateway.get("/metrics")[1])
    own_redis_server.stop()
    wait_until(lambda: "quarterdeck_subscription_up 0\n" in gateway.get("/metrics")[1])


def test_a_key_revoked_at_one_gateway_is_refused_by_the_other_at_once(start: Start, call: Callable[..., Call]) -> None:
    one, other = start(), start()
    admin = call(one, ADMIN)
    status, made = admin.request("POST", "/admin/keys", {"name": "short"})
    assert status == 201
    client = call(other, made["key"])
    assert client.chat()[0] == 200
    assert admin.request("DELETE", f"/admin/keys/{made['id']}")[0] == 200
    status, body = client.chat()
    assert (status, body["error"]["code"]) == (401, "invalid_api_key")


def test_a_change_at_one_gateway_is_heard_by_the_other_without_any_admission(
    start: Start, call: Callable[..., Call], redis_url: str
) -> None:
    """Long before the 30 s after which a key is read again in any case."""
    one, other = start(), start()
    admin = call(one, ADMIN)

    def models(client: Call) -> int:
        status, body = client.request("GET", "/v1/models")
        return len(body["data"]) if status == 200 else -status

    keys = [admin.request("POST", "/admin/keys", {"name": name, "team": "red"})[1] for name in ("a", "b", "c")]
    clients = [call(other, key["key"]) for key in keys]
    assert [models(client) for client in clients] == [1, 1, 1]
    admin.request("DELETE", f"/admin/keys/{keys[0]['id']}")
    wait_until(lambda: models(clients[0]) == -401, seconds=10)
    admin.request("POST", f"/admin/keys/{keys[1]['id']}", {"models": []})
    wait_until(lambda: models(clients[1]) == 0, seconds=10)
    asyncio.run(_deafen(redis_url))  # no gateway is subscribed now
    admin.request("DELETE", f"/admin/keys/{keys[2]['id']}")
    wait_until(lambda: models(clients[2]) == -401, seconds=10)


def test_a_key_revoked_while_redis_is_away_is_refused_by_the_other_gateway_too(
    start: Start, call: Callable[..., Call], own_redis_server: RedisServer
) -> None:
    """Before the 30 s after which a key is read again in any case."""
    one, other = (start(QUARTERDECK_REDIS_URL=own_redis_server.url()) for _ in range(2))
    admin = call(one, ADMIN)
    made = admin.request("POST", "/admin/keys", {"name": "short"})[1]
    client = call(other, made["key"])
    assert client.chat()[0] == 200
    own_redis_server.stop()
    assert admin.request("DELETE", f"/admin/keys/{made['id']}")[0] == 200
    wait_until(lambda: client.chat()[0] == 401, seconds=20)
    assert call(other).chat()[0] == 200
    own_redis_server.start()


async def _deafen(redis_url: str) -> None:
    redis = Redis(redis_url)
    await redis.call("CLIENT", "KILL", "TYPE", "pubsub")
    await redis.close()


def test_without_a_database_a_gateway_starts_and_says_what_is_away(start: Start, call: Callable[..., Call]) -> None:
    nowhere = "postgresql+asyncpg://postgres@/nowhere?host=/nonexistent"
    gateway = start(ready_path="/healthz", QUARTERDECK_DATABASE_URL=nowhere)
    wait_until(lambda: gateway.get("/readyz")[1]["parts"]["redis"] == "ready")
    status, report = gateway.get("/readyz")
    assert (status, report["status"], report["parts"]["database"]) == (503, "starting", "away")
    status, body = call(gateway).chat()
    assert (status, body["error"]["code"]) == (503, "auth_unavailable")


def test_redis_may_die_and_come_back_under_a_known_key(
    start: Start, call: Callable[..., Call], own_redis_server: RedisServer, folder: Path
) -> None:
    gateway = start(QUARTERDECK_REDIS_URL=own_redis_server.url())
    client = call(gateway)
    assert client.chat()[0] == 200
    own_redis_server.kill()
    assert [client.chat()[0] for _ in range(3)] == [200] * 3
    wait_until(lambda: gateway.get("/readyz")[1]["parts"]["redis"] == "away")
    assert gateway.get("/readyz")[0] == 200
    own_redis_server.start()
    wait_until(lambda: len(records(own_redis_server.url())) == 4)
    assert {record.status for record in records(own_redis_server.url())} == {"ok"}


def test_a_config_that_is_wrong_is_one_line_with_its_number(folder: Path) -> None:
    path = folder / "bad.yaml"
    path.write_text("models: []\nnonsense: 1\n")
    status, said = run(QUARTERDECK_CONFIG=str(path), QUARTERDECK_PORT=str(free_port()))
    assert status == 2
    assert "bad.yaml:2: nonsense" in said
    assert "Traceback" not in said


def test_a_port_that_is_taken_is_one_line(folder: Path, start: Start) -> None:
    gateway = start()
    status, said = run(QUARTERDECK_CONFIG=str(gateway.config), QUARTERDECK_PORT=str(gateway.port))
    assert status == 1
    assert "cannot listen" in said
    assert "Traceback" not in said


def run(**environ: str) -> tuple[int, str]:
    """Run a gateway that is expected to exit: its status and stderr."""
    words = [f"{name}={value}" for name, value in environ.items()]
    command = ["env", *words, sys.executable, "-m", "quarterdeck.gateway"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    return done.returncode, done.stderr


def migrate(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    words = [f"{name}={value}" for name, value in environ.items()]
    command = ["env", *words, sys.executable, "-m", "quarterdeck.gateway", "--migrate", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)


def test_a_migration_makes_the_tables_and_exits(folder: Path) -> None:
    done = migrate(QUARTERDECK_STATE=str(folder))
    assert (done.returncode, (folder / "quarterdeck.db").exists()) == (0, True), done.stderr
    assert migrate(QUARTERDECK_STATE=str(folder)).returncode == 0, "again"


def test_a_migration_waits_for_its_database_for_a_time(folder: Path) -> None:
    url = f"postgresql://nobody@127.0.0.1:{free_port()}/none"
    done = migrate("--timeout", "100ms", QUARTERDECK_STATE=str(folder), QUARTERDECK_DATABASE_URL=url)
    assert done.returncode == 1
    assert "the database was not available within 0.1 s" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_migration_with_a_malformed_setting_is_one_line_and_2(folder: Path) -> None:
    done = migrate(QUARTERDECK_STATE=str(folder), QUARTERDECK_DATABASE_URL="nonsense")
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)


@pytest.mark.parametrize(
    ("variable", "value", "problem"),
    [
        ("QUARTERDECK_BOOTSTRAP_KEY", "short", "must be 32 to 256 characters"),
        ("QUARTERDECK_BOOTSTRAP_KEY_FILE", "/nowhere/key", "No such file"),
        ("QUARTERDECK_OPERATOR_TOKEN", "short", "at least 16 characters"),
        ("QUARTERDECK_CONFIG_MAP", "qd-config", "no Kubernetes API is known"),
    ],
)
def test_a_malformed_secret_or_cluster_is_one_line_and_2(folder: Path, variable: str, value: str, problem: str) -> None:
    parts = {"QUARTERDECK_STATE": str(folder), "QUARTERDECK_PORT": str(free_port()), "KUBECONFIG": "/nowhere/config"}
    status, said = run(**parts, **{variable: value})
    assert status == 2
    assert problem in said and "Traceback" not in said


def test_process_1_ends_when_it_is_told_while_it_starts(folder: Path) -> None:
    """The kernel gives process 1 no signal that it has no handler for, and a pod that is deleted at once would last as
    long as its grace period."""
    script = Path(__file__).parents[2] / "services/gateway/main.py"
    read, write = os.pipe()
    code = "import os, runpy, signal\nregister = signal.signal\n"
    code += f"signal.signal = lambda *a: (register(*a), os.write({write}, b'x'))[0]\n"
    code += f"runpy.run_path({str(script)!r}, run_name='__main__')"
    started = subprocess.Popen(
        ["unshare", "--pid", "--fork", "--kill-child", sys.executable, "-c", code],
        env={**os.environ, "QUARTERDECK_STATE": str(folder), "QUARTERDECK_PORT": str(free_port())},
        pass_fds=[write],
        stderr=subprocess.PIPE,
    )
    os.close(write)
    try:
        if not os.read(read, 1):
            assert started.stderr is not None
            pytest.skip(f"no process can be process 1 here: {started.stderr.read().decode()}")
        (child,) = Path(f"/proc/{started.pid}/task/{started.pid}/children").read_text().split()
        os.kill(int(child), signal.SIGTERM)
        assert started.wait(30) in (143, 0)
    finally:
        os.close(read)
        started.kill()
        started.communicate()
