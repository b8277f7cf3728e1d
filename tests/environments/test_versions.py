"""The tests of core, CLI and simulator on the other versions of Python that the package supports, part by part.

Each version has an environment of its own, made as `make core` makes it. What a user of the package runs is here; the
rest of the suite (worker, operator, cluster, faults, clients, load) runs on 3.11 only, as the images and the engine do.
Tests that are marked `long` are left out: one part takes two to nine minutes without them.
"""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

pytestmark = [pytest.mark.long, pytest.mark.timeout(2400)]

ROOT = Path(__file__).resolve().parents[2]
PARTS = {
    "cli": ["cli"],
    "gateway": ["gateway"],
    "inference": ["inference"],
    "simulator": ["simulator"],
    "store": ["store", "protocol"],
    "foundations": [
        *("settings", "net", "accounting"),
        *(f"test_{name}.py" for name in ("errors", "ids", "money", "processes", "record")),
    ],
}


def interpreter(version: str) -> str | None:
    pyenv = sorted((Path.home() / ".pyenv" / "versions").glob(f"{version}.*/bin/python"))
    return str(pyenv[-1]) if pyenv else shutil.which(f"python{version}")


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("version", ["3.12", "3.13"])
def test_core_cli_and_simulator_pass_on(version: str, part: str, tmp_path: Path) -> None:
    if (python := interpreter(version)) is None:
        pytest.skip(f"NOT TESTED: this machine has no Python {version}")
    # The environment finds `src` two folders above its link.
    (tmp_path / "src").symlink_to(ROOT / "src")
    make = [python, str(ROOT / "environments/make.py"), "--into", str(tmp_path), "core"]
    subprocess.run(make, check=True)
    paths = [f"tests/{name}" for name in PARTS[part]]
    options = ["-m", "not long and not e2e", "-q", "-p", "no:cacheprovider", "--timeout=600"]
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "COV_"))}
    command = [str(tmp_path / ".envs/core/bin/python"), "-m", "pytest", *options, *paths]
    done = subprocess.run(command, cwd=ROOT, env=kept, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    assert " passed" in done.stdout
