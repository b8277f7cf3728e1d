"""`up -d`, `restart` and `down` with real processes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from tests.cli.running import free_ports
from tests.servers import short_folder

from quarterdeck.cli import detached, state
from quarterdeck.cli.__main__ import cli
from quarterdeck.cli.up import arguments_of


def test_options_are_kept_with_whole_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = arguments_of(engine="sim", config=Path("q.yaml"), port=None, sim=("seed=1", "mode=echo"))
    assert words == ["--engine", "sim", "--config", f"{tmp_path}/q.yaml", "--sim", "seed=1", "--sim", "mode=echo"]
    detached.keep_options(words, tmp_path)
    assert detached.kept_options(tmp_path) == words


def test_a_restart_before_the_first_start_is_one_line(tmp_path: Path) -> None:
    done = CliRunner().invoke(cli, ["restart"], env={"QUARTERDECK_STATE": str(tmp_path)})
    assert (done.exit_code, done.stderr.count("\n")) == (1, 1)
    assert "has not run on" in done.stderr


def test_options_of_the_simulator_need_the_simulator(tmp_path: Path) -> None:
    done = CliRunner().invoke(cli, ["up", "--sim", "seed=1"], env={"QUARTERDECK_STATE": str(tmp_path)})
    assert (done.exit_code, "--sim needs --engine sim" in done.stderr) == (2, True)


@pytest.mark.long
def test_the_platform_runs_in_the_background_is_restarted_and_stopped() -> None:
    folder, ports = short_folder(), free_ports(3)
    names = ("QUARTERDECK_PORT", "QUARTERDECK_WORKER_PORT", "QUARTERDECK_ENGINE_PORT")
    environ = {**os.environ, "QUARTERDECK_STATE": str(folder)} | dict(zip(names, map(str, ports), strict=True))

    def run(*words: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "quarterdeck.cli", *words]
        return subprocess.run(command, env=environ, capture_output=True, text=True, stdin=subprocess.DEVNULL)

    started = run("up", "-d", "--engine", "sim", "--sim", "mode=echo")
    try:
        assert started.returncode == 0, started.stderr
        assert started.stdout.count("Chat is ready") == 1 and "sk-qd-" in started.stdout
        assert "sk-qd-" not in (folder / "logs" / "up.log").read_text()
        assert "simulated" in run("status").stdout
        assert "hello there" in run("chat", "hello there").stdout
        assert "already running" in run("up", "-d", "--engine", "sim").stderr
        pid = state.holder(folder)
        restarted = run("restart")
        assert (restarted.returncode, "Chat is ready" in restarted.stdout) == (0, True), restarted.stderr
        assert state.holder(folder) not in (None, pid)
        assert "hello again" in run("chat", "hello again").stdout
    finally:
        stopped = run("down")
    assert (stopped.returncode, stopped.stdout) == (0, "stopped\n")
    assert run("status").returncode == 3


@pytest.mark.long
def test_a_start_in_the_background_that_fails_says_why() -> None:
    folder = short_folder()
    environ = {**os.environ, "QUARTERDECK_STATE": str(folder), "QUARTERDECK_PORT": "1", "QUARTERDECK_WORKER_PORT": "1"}
    command = [sys.executable, "-m", "quarterdeck.cli", "up", "-d", "--engine", "sim"]
    done = subprocess.run(command, env=environ, capture_output=True, text=True)
    assert done.returncode == 1
    assert "QUARTERDECK_PORT and QUARTERDECK_WORKER_PORT are both 1" in done.stdout
    assert not state.is_locked(folder)
