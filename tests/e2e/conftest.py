"""The real stack, started once for all e2e tests, then a second one for the quantized model."""

import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.samples import CHATS, TEXTS
from tests.e2e.stack import CHAT, EMBED, ENGINE_PYTHON, Stack, Stacks, stacks

from quarterdeck.settings.environment import Environment

HERE = Path(__file__).parent

PLATFORM = f"""
models:
  - name: {CHAT}
    aliases: [gpt-4o-mini]
    engine:
      source: packaged:{CHAT}
      context: 2048
      tool_parser: hermes
      max_adapters: 1
      max_adapter_rank: 8
    price: {{input: "0.10", cached_input: "0.05", output: "0.40"}}
  - name: {EMBED}
    engine: {{source: "packaged:{EMBED}", task: embed}}
"""
QUANTIZED = f"""
models:
  - name: quantized
    engine: {{source: "packaged:{CHAT}", context: 1024, quantization: bitsandbytes}}
"""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Order tests: the engine kill and the other stack last, because each start takes a minute. In one process these
    tests come after all others; of several processes, one begins with them."""
    here = [item for item in items if item.path.is_relative_to(HERE)]
    last = ("test_survival", "test_quantized", "test_offline_batches")
    here.sort(key=lambda item: last.index(item.path.stem) + 1 if item.path.stem in last else 0)
    others = [item for item in items if not item.path.is_relative_to(HERE)]
    items[:] = here + others if hasattr(config, "workerinput") else others + here
    for item in here:
        item.add_marker(pytest.mark.e2e)
        item.add_marker(pytest.mark.timeout(1200))  # the first test of a stack waits for its start


@pytest.fixture(scope="session")
def running() -> Iterator[Stacks]:
    assert ENGINE_PYTHON.exists(), "the engine's environment is missing: make setup"
    # A short path: Ray's sockets are below it, and a socket's path is limited to 107 bytes.
    folder = Path(tempfile.mkdtemp(prefix="qd-e2e-"))
    with stacks(folder) as found:
        yield found
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def platform(running: Stacks) -> Stack:
    return running.use("platform", PLATFORM)


@pytest.fixture
def quantized(running: Stacks) -> Stack:
    return running.use("quantized", QUANTIZED)


@pytest.fixture(scope="session")
def reference(running: Stacks, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return results of sentence-transformers and the tokenizer, and the path of a LoRA adapter."""
    stack = running.use("platform", PLATFORM)  # it prepares the models
    models = Environment.read().cache / "models"
    adapter = stack.folder / "state" / "adapters" / "loud"
    asked = json.dumps({"texts": TEXTS, "chats": CHATS})
    done = subprocess.run(
        [ENGINE_PYTHON, HERE / "reference.py", models / CHAT, models / EMBED, adapter],
        input=asked,
        capture_output=True,
        text=True,
        env={"HF_HUB_OFFLINE": "1", "PATH": "/usr/bin:/bin", "TOKENIZERS_PARALLELISM": "false"},
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return {**json.loads(done.stdout), "adapter": str(adapter)}
