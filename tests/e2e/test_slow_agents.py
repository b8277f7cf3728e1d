"""Ray starts where its agents, Python processes, take longer than its raylet would wait for their ports."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.e2e.stack import CHECKOUT, ENGINE_PYTHON

DELAY_SECONDS = 45
"""Ray 2.60's raylet waits 15 s for the agents, and `ray.init` 30 s for the raylet."""
DELAYED_AGENTS = f"""
import sys, time
if any(each.endswith(("dashboard/agent.py", "runtime_env/agent/main.py")) for each in sys.orig_argv):
    time.sleep({DELAY_SECONDS})
"""
START = """
import os, sys
from pathlib import Path
from quarterdeck.engine.ray_variables import set_variables
set_variables(os.environ, Path(sys.argv[1]), is_ours=True, is_loopback=True)
from quarterdeck.engine.cluster import Cluster
from quarterdeck.engine.machine import read_machine
from quarterdeck.engine.private_folders import ray_folder
from quarterdeck.settings.engine import EngineDoorSettings
from quarterdeck.settings.environment import Environment
environment = Environment.read()
with ray_folder(environment.state, os.environ) as folder:
    cluster = Cluster(EngineDoorSettings.read(environment), folder)
    cluster.start(read_machine())
    print("applications:", len(cluster.details()["applications"]), flush=True)
    import ray
    ray.shutdown()
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short path, for Ray's sockets."""
    made = Path(tempfile.mkdtemp(prefix="qd-e2e-"))
    yield made
    shutil.rmtree(made, ignore_errors=True)


@pytest.mark.long
def test_ray_starts_while_its_agents_do_not_answer_yet(folder: Path) -> None:
    if not ENGINE_PYTHON.exists():
        pytest.skip("NOT TESTED: Ray, because there is no engine environment")
    (folder / "sitecustomize.py").write_text(DELAYED_AGENTS)
    source = CHECKOUT / "src"
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("QUARTERDECK_", "RAY_"))}
    environ |= {"PYTHONPATH": f"{folder}:{source}", "QUARTERDECK_STATE": str(folder / "state")}
    done = subprocess.run(
        [ENGINE_PYTHON, "-c", START, source], env=environ, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert "applications: 0" in done.stdout
