"""The state folder, the credentials in it, and the redis-server beside them."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from quarterdeck import processes
from quarterdeck.cli import credentials, doors, redis_server, state
from quarterdeck.cli.child import last_lines, rotate
from quarterdeck.settings.environment import Environment
from quarterdeck.settings.loading import parse

CONFIG = """
models:
  - name: chatty
    engine: {source: "packaged:smollm2-135m-instruct"}
  - name: vectors
    engine: {source: "./somewhere", task: embed}
  - name: elsewhere
    endpoints: [{url: "http://10.0.0.7:8000"}]
"""


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_folder_is_this_users_only(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    folder.mkdir(mode=0o755)
    state.prepare(folder)
    assert {mode(path) for path in (folder, folder / "redis", folder / "logs")} == {0o700}


def test_a_second_up_is_refused_in_one_line(tmp_path: Path) -> None:
    program = (
        "import sys, pathlib; from quarterdeck.cli import state\nwith state.locked(pathlib.Path(sys.argv[1])): pass"
    )
    with state.locked(tmp_path):
        assert state.is_locked(tmp_path)
        done = subprocess.run(
            [sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=False
        )
    assert f"up already (process {os.getpid()}" in done.stderr
    assert not state.is_locked(tmp_path)


def test_what_an_earlier_run_left_behind_is_found_by_its_mark_and_ended(tmp_path: Path) -> None:
    sleeper = [sys.executable, "-c", "print(1, flush=True); import time; time.sleep(600)"]
    environ = {**os.environ, state.RUN_VARIABLE: state.run_id(tmp_path)}
    with (
        subprocess.Popen(sleeper, env=environ, stdout=subprocess.PIPE) as ours,
        subprocess.Popen(sleeper, stdout=subprocess.PIPE) as another,
    ):
        assert ours.stdout and another.stdout
        ours.stdout.readline()
        another.stdout.readline()
        assert state.left_over(tmp_path) == [ours.pid]
        assert state.end_left_over(tmp_path) == 1
        assert not processes.is_alive(ours.pid)
        assert processes.is_alive(another.pid)
        another.kill()


def test_credentials_are_made_once_and_kept_with_the_address_that_holds_now(tmp_path: Path) -> None:
    first, is_new = credentials.ensure(tmp_path, "http://127.0.0.1:8000/v1")
    again, is_new_again = credentials.ensure(tmp_path, "http://127.0.0.1:9000/v1")
    assert (is_new, is_new_again) == (True, False)
    assert (again.api_key, again.admin_key) == (first.api_key, first.admin_key)
    assert credentials.read(tmp_path).gateway_url == "http://127.0.0.1:9000"
    assert mode(tmp_path / "credentials") == 0o600


@pytest.mark.parametrize("text", ["", "api_key = 1", "not toml ["])
def test_broken_credentials_say_what_to_do(tmp_path: Path, text: str) -> None:
    (tmp_path / "credentials").write_text(text, encoding="utf-8")
    with pytest.raises(credentials.CredentialsError, match="remove it"):
        credentials.read(tmp_path)


def test_redis_has_no_tcp_port_and_never_evicts(tmp_path: Path) -> None:
    words = redis_server.arguments(Path("redis-server"), Path("/s/redis"))
    options = dict(zip(words[1::2], words[2::2], strict=True))
    assert options["--port"] == "0"
    assert options["--maxmemory-policy"] == "noeviction"
    assert (options["--appendonly"], options["--appendfsync"]) == ("yes", "everysec")


def test_a_path_that_the_kernel_would_refuse_is_refused_with_a_way_out() -> None:
    with pytest.raises(redis_server.RedisServerError, match="QUARTERDECK_STATE"):
        redis_server.arguments(Path("redis-server"), Path("/" + "x" * 100))


def test_the_wheels_redis_runs_here() -> None:
    binary = redis_server.wheel_binary()
    assert binary is not None
    assert redis_server.version_of(binary)


def planned(kind: doors.EngineKind) -> doors.Doors:
    environment = Environment.read({"QUARTERDECK_STATE": "/s", "HOME": "/h", "QUARTERDECK_ENGINE_URL": "http://e:1"})
    pythons = doors.Interpreters(Path("/core/python"), Path("/engine/python"))
    return doors.plan(environment, parse(CONFIG), Path("/c.yaml"), kind, pythons, None)


def test_the_real_engine_runs_in_its_own_environment() -> None:
    engine = planned("vllm").engine
    assert engine is not None
    assert engine.argv == ("/engine/python", "-m", "quarterdeck.engine")
    assert engine.environ["QUARTERDECK_ENGINE_URL"] == "http://127.0.0.1:8011"
    assert engine.environ["QUARTERDECK_CONFIG"] == "/c.yaml"


def test_the_simulated_engine_serves_each_model_that_has_an_engine() -> None:
    engine = planned("sim").engine
    assert engine is not None
    assert engine.argv[-4:] == ("--model", "chatty", "--embedding-model", "vectors")


def test_without_an_engine_the_users_own_engine_door_is_kept() -> None:
    doors_ = planned("none")
    assert doors_.engine is None
    assert doors_.gateway.environ["QUARTERDECK_ENGINE_URL"] == "http://e:1"


def test_only_packaged_models_are_prepared_and_only_generating_ones_make_it_usable() -> None:
    assert doors.packaged_models(parse(CONFIG)) == ["smollm2-135m-instruct"]
    assert doors.chat_models(parse(CONFIG)) == ["chatty", "elsewhere"]


def test_every_process_of_a_run_carries_its_mark() -> None:
    plan = planned("vllm")
    assert plan.engine is not None
    marks = {door.environ[state.RUN_VARIABLE] for door in (plan.engine, plan.worker, plan.gateway)}
    assert marks == {state.run_id(Path("/s"))}


def test_a_log_that_grew_too_large_is_begun_anew_under_its_writer(tmp_path: Path) -> None:
    log = tmp_path / "gateway.log"
    with log.open("ab", buffering=0) as writer:
        writer.write(b"old\n" * 100)
        rotate(log, 100)
        writer.write(b"new\n")
    assert log.read_bytes() == b"new\n"
    assert (tmp_path / "gateway.log.1").read_bytes().startswith(b"old")


def test_the_last_lines_of_a_log(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    assert last_lines(log, 2) == "(no log)"
    log.write_text("a\nb\nc\n", encoding="utf-8")
    assert last_lines(log, 2) == "b\nc"
