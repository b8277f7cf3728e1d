"""The programs of examples/, each as it stands in the environment of its client."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from tests.clients.conftest import CHAT_MODEL, Platform
from tests.clients.registry import CLIENTS, ROOT, interpreter, missing

EXAMPLES = ROOT / "examples"
PROGRAMS = {
    "openai_agents.py": ("openai-agents", "ToolCallItem"),
    "langgraph_agent.py": ("langchain", "ToolMessage"),
    "llamaindex_agent.py": ("llamaindex", "tool: weather"),
    "dspy_program.py": ("dspy", "answer: "),
    "vercel_ai.mjs": ("vercel-ai", "weather"),
    "pydantic_ai_agent.py": ("pydantic-ai", "'ModelRequest', 'ModelResponse', 'ModelRequest', 'ModelResponse'"),
    "instructor_model.py": ("instructor", "City"),
}
"""The client of each, and what its output has."""


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("program", PROGRAMS)
def test_an_example_works_as_it_stands(program: str, platform: Platform, tmp_path: Path) -> None:
    name, says = PROGRAMS[program]
    client = CLIENTS[name]
    if (lacking := missing(client)) is not None:
        pytest.skip(lacking)
    command, _ = interpreter(client, tmp_path)
    shutil.copy(EXAMPLES / program, tmp_path)
    environ = {**os.environ, **platform.variables, "MODEL": CHAT_MODEL, "HOME": str(tmp_path), "NO_COLOR": "1"}
    environ |= {"LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    done = subprocess.run(
        [*command, program], cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=500, check=False
    )
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    assert says in done.stdout, done.stdout[-2000:]
    assert platform.gateway.log.read_text().count('"path":"/v1/responses"') > 0


def test_every_example_is_run_and_short() -> None:
    files = {path.name for path in EXAMPLES.iterdir() if path.suffix in (".py", ".mjs")}
    assert files == set(PROGRAMS)
    for name in files:
        assert len((EXAMPLES / name).read_text().splitlines()) <= 40, name
