"""`python -m quarterdeck.<door> --help` prints help and starts nothing."""

import subprocess
import sys

import pytest

DOORS = ("gateway", "worker", "operator", "engine", "engine.kuberay", "simulator", "cli")


@pytest.mark.parametrize("door", DOORS)
def test_every_door_has_help(door: str) -> None:
    command = [sys.executable, "-m", f"quarterdeck.{door}", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.lower().startswith("usage: ")


@pytest.mark.parametrize("door", ("engine", "engine.kuberay"))
def test_an_unknown_argument_starts_nothing(door: str) -> None:
    command = [sys.executable, "-m", f"quarterdeck.{door}", "--no-such-option"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "unrecognized arguments: --no-such-option" in done.stderr
