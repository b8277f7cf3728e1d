"""The deployment process, played by a small program."""

import asyncio
import sys
import textwrap
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from quarterdeck.engine.deployer import Deployer
from quarterdeck.model_lifecycle.runtime import StartFailure

PROGRAM = """
import json, os, sys, time
answers = os.fdopen(int(sys.argv[1]), "w", buffering=1)
print("vLLM prints to stdout")
for line in sys.stdin:
    app = json.loads(line)["app"]
    if app == "dies":
        sys.exit(3)
    if app == "hangs":
        open(sys.argv[2], "w").write(str(os.getpid()))
        time.sleep(600)
    error = "no such flag" if app == "refused" else ""
    print(json.dumps({"app": app, "error": error}), file=answers, flush=True)
"""


@pytest.fixture
async def deployer(tmp_path: Path) -> AsyncIterator[Deployer]:
    program = tmp_path / "deploy.py"
    program.write_text(textwrap.dedent(PROGRAM))
    # The file descriptor is the last argument: a wrapper puts it first.
    run = f"runpy.run_path({str(program)!r})"
    wrapper = f"import sys, runpy; sys.argv = ['x', sys.argv[1], {str(tmp_path / 'pid')!r}]; {run}"
    subject = Deployer((sys.executable, "-c", wrapper))
    yield subject
    await subject.close()


async def test_models_are_deployed_by_one_process_one_after_the_other(deployer: Deployer) -> None:
    await deployer.start()
    await asyncio.gather(deployer.deploy({"app": "a"}), deployer.deploy({"app": "b"}))
    with pytest.raises(StartFailure, match="no such flag"):
        await deployer.deploy({"app": "refused"})
    await deployer.deploy({"app": "c"})


async def test_a_process_that_exits_fails_its_model_only(deployer: Deployer) -> None:
    with pytest.raises(StartFailure, match="exited with status 3"):
        await deployer.deploy({"app": "dies"})
    await deployer.deploy({"app": "a"})


async def test_a_cancelled_deployment_that_hangs_ends_the_process(deployer: Deployer, tmp_path: Path) -> None:
    hanging = asyncio.create_task(deployer.deploy({"app": "hangs"}))
    while not (tmp_path / "pid").exists():  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    hanging.cancel()
    with pytest.raises(asyncio.CancelledError):
        await hanging
    await deployer.deploy({"app": "a"})
