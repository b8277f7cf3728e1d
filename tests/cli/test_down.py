"""`quarterdeck down`: stops the process that holds the state folder."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from quarterdeck.cli import state
from quarterdeck.cli.__main__ import cli

HOLD = """
import signal, sys, threading
from pathlib import Path
from quarterdeck.cli import state
stop = threading.Event()
count = []
def handle(number, frame):
    count.append(number)
    if len(count) == int(sys.argv[2]):
        stop.set()
signal.signal(signal.SIGTERM, handle)
with state.locked(Path(sys.argv[1])):
    print("held", flush=True)
    while not stop.wait(0.05):
        pass
"""


@pytest.fixture
def running(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator["subprocess.Popen[str]"]:
    """A process that holds the folder until it has been signalled as often as the parameter says."""
    command = [sys.executable, "-c", HOLD, str(tmp_path), str(request.param)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


@pytest.mark.parametrize("running", [1], indirect=True)
def test_it_returns_once_the_platform_has_ended(running: "subprocess.Popen[str]", tmp_path: Path) -> None:
    done = CliRunner().invoke(cli, ["down"], env={"QUARTERDECK_STATE": str(tmp_path)})
    assert (done.exit_code, done.stdout) == (0, "stopped\n"), done.output
    assert not state.is_locked(tmp_path)
    assert running.wait(10) == 0


@pytest.mark.parametrize("running", [2], indirect=True)
def test_now_does_not_wait_for_requests(running: "subprocess.Popen[str]", tmp_path: Path) -> None:
    assert CliRunner().invoke(cli, ["down", "--now"], env={"QUARTERDECK_STATE": str(tmp_path)}).exit_code == 0


def test_nothing_runs(tmp_path: Path) -> None:
    done = CliRunner().invoke(cli, ["down"], env={"QUARTERDECK_STATE": str(tmp_path)})
    assert (done.exit_code, done.stdout) == (0, "")
    assert "is not running" in done.stderr
