"""The simulated metrics have vLLM's names."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from quarterdeck.simulator.metrics import series as named

OURS = {each.name for each in (*named.GAUGES, *named.COUNTERS, *named.HISTOGRAMS, named.LORA_INFO, named.CACHE_INFO)}


READ_NAMES = """
import importlib.util, pathlib, re
root = pathlib.Path(importlib.util.find_spec("vllm").submodule_search_locations[0])
text = "".join(path.read_text() for path in sorted((root / "v1" / "metrics").glob("*.py")))
print("\\n".join(sorted(set(re.findall(r"vllm:[a-z0-9_]+", text)))))
"""


def engine_python() -> Path:
    given = os.environ.get("QUARTERDECK_ENGINE_PYTHON")
    return Path(given) if given else Path(__file__).parents[3] / ".envs" / "engine" / "bin" / "python"


@pytest.fixture(scope="module")
def vllms_names() -> set[str]:
    python = engine_python()
    if not python.exists():
        pytest.skip(f"no engine environment ({python}): vLLM's own names can't be read")
    read = subprocess.run([python, "-c", READ_NAMES], capture_output=True, text=True, check=False)
    if read.returncode:
        pytest.skip(f"no vLLM in the engine environment: {read.stderr.strip().splitlines()[-1]}")
    return set(read.stdout.split())


def test_every_series_is_one_of_vllms(vllms_names: set[str]) -> None:
    assert vllms_names >= OURS


def test_the_series_that_vllm_always_has_are_there(vllms_names: set[str]) -> None:
    conditional = re.compile(
        r"vllm:(corrupted|diffusion|spec_decode|kv_block|estimated|external_prefix|mm_cache|num_accepted|.*_per_pos)"
    )
    assert {name for name in vllms_names if not conditional.match(name)} - OURS == set()
