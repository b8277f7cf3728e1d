"""`quarterdeck up` with the simulated engine and real Redis, gateway and worker."""

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.cli.running import Running, free_ports, running
from tests.small_disk import SmallDisk

from quarterdeck.cli import state

pytestmark = pytest.mark.timeout(600)  # several starts of the whole platform, on a machine that may be busy
QUARTERDECK = [sys.executable, "-m", "quarterdeck.cli"]


def fresh(factory: pytest.TempPathFactory) -> dict[str, str]:
    """Variables for a separate state folder and separate ports."""
    mine = {name: value for name, value in os.environ.items() if not name.startswith(("QUARTERDECK_", "OTEL_"))}
    ports = ("QUARTERDECK_PORT", "QUARTERDECK_WORKER_PORT", "QUARTERDECK_ENGINE_PORT")
    mine |= dict(zip(ports, map(str, free_ports(3)), strict=True))
    return mine | {"QUARTERDECK_STATE": str(factory.mktemp("up"))}


@pytest.fixture(scope="module")
def environ(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    return fresh(tmp_path_factory)


@pytest.fixture(scope="module")
def platform(environ: Mapping[str, str]) -> Iterator[Running]:
    with up(environ) as program:
        program.until("Press Ctrl-C to stop")
        yield program


@contextmanager
def up(environ: Mapping[str, str]) -> Iterator[Running]:
    with running([*QUARTERDECK, "up", "--engine", "sim"], environ, patience=120) as program:
        yield program


def say(environ: Mapping[str, str], *words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*QUARTERDECK, *words], env=environ, input=stdin, capture_output=True, text=True, check=False, timeout=180
    )


def folder(environ: Mapping[str, str]) -> Path:
    return Path(environ["QUARTERDECK_STATE"])


def test_the_curl_line_works_when_pasted(platform: Running) -> None:
    line = next(line for line in platform.lines if line.strip().startswith("curl "))
    done = subprocess.run(line, shell=True, capture_output=True, text=True, check=True, timeout=180)  # noqa: S602
    assert '"chat.completion"' in done.stdout


def test_the_exports_point_an_openai_client_at_the_platform(platform: Running, environ: Mapping[str, str]) -> None:
    program = "import openai; print([m.id for m in openai.OpenAI().models.list()])"
    script = f'eval "$({" ".join(QUARTERDECK)} env)"; exec {sys.executable} -c "{program}"'
    done = subprocess.run(["sh", "-c", script], env=environ, capture_output=True, text=True, check=True, timeout=180)
    assert "smollm2-135m-instruct" in done.stdout


def test_chat_answers_a_question_and_a_pipe(platform: Running, environ: Mapping[str, str]) -> None:
    assert say(environ, "chat", "What", "is", "up?").stdout.strip()
    assert say(environ, "chat", "-m", "smollm2-135m-instruct", stdin="What is up?").stdout.strip()


def test_chat_with_a_model_that_is_not_there_says_so_in_one_line(platform: Running, environ: Mapping[str, str]) -> None:
    done = say(environ, "chat", "-m", "nothing", "hello")
    assert done.returncode == 1
    assert done.stderr.startswith("Error: The model 'nothing' does not exist")
    assert len(done.stderr.splitlines()) == 1


def test_models_are_listed_with_their_state(platform: Running, environ: Mapping[str, str]) -> None:
    rows = [line.split() for line in say(environ, "models").stdout.splitlines()]
    assert ["smollm2-135m-instruct", "ready", "generate", "simulated"] in rows
    assert ["all-minilm-l6-v2", "ready", "embed", "simulated"] in rows


def test_a_key_is_made_shown_once_listed_and_revoked(platform: Running, environ: Mapping[str, str]) -> None:
    made = say(environ, "keys", "create", "ci", "--requests-per-minute", "5")
    key, id = made.stdout.strip(), made.stderr.split()[0]
    assert key.startswith("sk-qd-")
    listed = say(environ, "keys", "list").stdout
    assert id in listed
    assert key not in listed
    assert say(environ, "keys", "revoke", id).stdout == f"key {id} revoked\n"
    row = next(line for line in say(environ, "keys", "list").stdout.splitlines() if id in line)
    assert row.endswith("revoked")


def test_status_says_what_runs(platform: Running, environ: Mapping[str, str]) -> None:
    done = say(environ, "status")
    assert done.returncode == 0
    assert "`quarterdeck up` is running" in done.stdout
    assert "no response" not in done.stdout
    assert [line.split()[:2] for line in done.stdout.splitlines()[2:5]] == [
        ["gateway", "ready"],
        ["worker", "ready"],
        ["engine", "ready"],
    ]


def test_status_asks_where_the_gateway_is_and_not_where_it_would_be(
    platform: Running, environ: Mapping[str, str]
) -> None:
    another_shell = {name: value for name, value in environ.items() if name != "QUARTERDECK_PORT"}
    done = say(another_shell, "status")
    assert done.returncode == 0
    assert f":{environ['QUARTERDECK_PORT']}/readyz" in done.stdout


def test_a_second_up_is_refused_in_one_line(platform: Running, environ: Mapping[str, str]) -> None:
    done = say(environ, "up", "--engine", "sim")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("Error: the platform is already running (pid ")


def test_the_folder_and_the_credentials_are_this_users_only(platform: Running, environ: Mapping[str, str]) -> None:
    modes = {name: (folder(environ) / name).stat().st_mode & 0o777 for name in ("", "credentials", "redis")}
    assert modes == {"": 0o700, "credentials": 0o600, "redis": 0o700}


def test_no_key_stands_in_a_log(platform: Running, environ: Mapping[str, str]) -> None:
    say(environ, "chat", "hello")
    for log in (folder(environ) / "logs").iterdir():
        assert "sk-qd-" not in log.read_text(encoding="utf-8"), log.name


def test_interrupt_leaves_no_process_and_the_next_start_keeps_the_key(tmp_path_factory: pytest.TempPathFactory) -> None:
    mine = fresh(tmp_path_factory)
    keys = []
    for _ in range(2):
        with up(mine) as program:
            keys.append(program.until("API key").split()[2])
            program.until("Press Ctrl-C to stop")
            assert program.interrupt() == 0
        assert "all processes have exited" in program.output
        assert state.leftover_pids(folder(mine)) == []
    assert keys[0] == keys[1]


def test_after_a_kill_the_next_start_cleans_up_and_serves(tmp_path_factory: pytest.TempPathFactory) -> None:
    mine = fresh(tmp_path_factory)
    with up(mine) as program:
        program.until("Press Ctrl-C to stop")
        program.process.send_signal(signal.SIGKILL)
    with up(mine) as program:
        program.until("Press Ctrl-C to stop")
        assert say(mine, "chat", "hello").stdout.strip()
        assert program.interrupt() == 0
    assert state.leftover_pids(folder(mine)) == []


def test_a_port_that_is_taken_is_said_before_anything_starts(tmp_path_factory: pytest.TempPathFactory) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        mine = fresh(tmp_path_factory)
        done = say(mine, "up", "--engine", "sim", "--port", str(port))
    assert done.returncode == 1
    assert f"127.0.0.1:{port} is already in use" in done.stderr


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"QUARTERDECK_HOST": "192.0.2.1"}, "set QUARTERDECK_HOST to an address of this machine"),
        ({"QUARTERDECK_WORKER_PORT": "QUARTERDECK_PORT"}, "QUARTERDECK_PORT and QUARTERDECK_WORKER_PORT are both"),
    ],
    ids=str,
)
def test_an_address_that_cannot_be_used_is_named(
    tmp_path_factory: pytest.TempPathFactory, changed: dict[str, str], words: str
) -> None:
    environ = fresh(tmp_path_factory)
    done = say(environ | {name: environ.get(value, value) for name, value in changed.items()}, "up", "--engine", "sim")
    assert done.returncode == 1
    assert words in done.stderr


@pytest.mark.parametrize(
    ("name", "value"),
    [("QUARTERDECK_REDIS_URL", "redis://:a/b@h"), ("QUARTERDECK_DATABASE_URL", "postgresql://u:a/b@h/d")],
)
def test_a_malformed_address_is_refused_before_anything_starts(
    tmp_path_factory: pytest.TempPathFactory, name: str, value: str
) -> None:
    environ = fresh(tmp_path_factory) | {name: value}
    done = say(environ, "up", "--engine", "sim")
    assert done.returncode == 1
    assert (done.stdout, done.stderr.count("\n")) == ("", 1)
    assert done.stderr.startswith(f"Error: {name}: ")
    assert list(folder(environ).iterdir()) == []


def test_a_state_folder_may_have_a_space_in_its_name(tmp_path_factory: pytest.TempPathFactory) -> None:
    environ = fresh(tmp_path_factory)
    state = Path(environ["QUARTERDECK_STATE"]) / "a ü"
    with up(environ | {"QUARTERDECK_STATE": str(state)}) as program:
        program.until("Press Ctrl-C to stop")
        assert any("on a unix socket" in line for line in program.lines)


def test_a_wrong_config_is_refused_with_its_line(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> None:
    config = tmp_path / "quarterdeck.yaml"
    config.write_text("models:\n  - name: m\n    enginee: {}\n", encoding="utf-8")
    mine = fresh(tmp_path_factory)
    done = say(mine, "up", "--config", str(config))
    assert done.returncode == 1
    assert "quarterdeck.yaml:3:" in done.stderr


def test_an_endpoint_that_is_down_and_a_refused_configuration_are_shown(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    environ = fresh(tmp_path_factory)
    config = tmp_path / "quarterdeck.yaml"
    dead = f"http://127.0.0.1:{free_ports(1)[0]}"
    text = f"models:\n  - name: away\n    endpoints: [{{url: '{dead}', api_key_env: NO_SUCH_KEY}}]\n"
    config.write_text(text.replace(", api_key_env: NO_SUCH_KEY", ""), encoding="utf-8")
    command = [*QUARTERDECK, "up", "--engine", "none", "--config", str(config)]
    with running(command, environ, patience=120) as program:
        program.until("gateway   model away: resting, connection failed")
        done = say(environ, "status")
        assert done.returncode == 1
        assert "gateway: model away: resting" in done.stdout
        config.write_text(text + "nonsense: 1\n", encoding="utf-8")
        program.until("gateway   config: refused, keeping the previous one")
        assert "gateway: config: refused" in say(environ, "status").stdout
        config.write_text(text, encoding="utf-8")
        program.until("gateway   model away: unavailable, environment variable NO_SUCH_KEY is not set")
        program.until("gateway   config: ready again")


@pytest.mark.long
@pytest.mark.parametrize("left", [0, 64 * 1024])
def test_a_full_disk_is_said_in_words_and_in_the_exit_status(tmp_path: Path, left: int) -> None:
    disk = SmallDisk(
        tmp_path / "disk", 2000
    )  # the tables are 100 B-trees of 4 KiB pages, at first in the WAL and the file
    try:
        mine = {name: value for name, value in os.environ.items() if not name.startswith(("QUARTERDECK_", "OTEL_"))}
        ports = ("QUARTERDECK_PORT", "QUARTERDECK_WORKER_PORT", "QUARTERDECK_ENGINE_PORT")
        mine |= dict(zip(ports, map(str, free_ports(3)), strict=True))
        mine |= {"QUARTERDECK_STATE": str(disk.folder / "state")}
        disk.fill(left)
        done = say(mine, "up", "--engine", "sim")
        assert done.returncode == 1
        assert "Traceback" not in done.stderr
        if left == 0:
            assert done.stderr.splitlines()[-1] == f"Error: No space left on device in {disk.folder}/state"
        else:
            assert re.search("no space left|disk is full", done.stdout), done.stdout
        disk.free()
        with up(mine) as program:
            program.until("Press Ctrl-C to stop")
    finally:
        disk.close()
