"""Clients of other projects against the gateway; their results are the table of docs/clients.md.

`QUARTERDECK_WRITE=1` writes a client's row instead of comparing it.
"""

import json
import os
import re
import subprocess
from pathlib import Path

import openai
import pytest
from tests.clients.conftest import EMBEDDING_MODEL, STRICT_MODEL, Platform
from tests.clients.registry import CLIENTS, FEATURES, ROOT, Client, interpreter, missing
from tests.servers import wait_until

PAGE = ROOT / "docs/clients.md"
QUICK = ("openai-python",)
"""In the environment that is always there; others are made on demand."""
NAMES = [name if name in QUICK else pytest.param(name, marks=pytest.mark.long) for name in CLIENTS]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", NAMES)
def test_a_client_does_what_the_page_says(name: str, platform: Platform, tmp_path: Path) -> None:
    client = CLIENTS[name]
    if (lacking := missing(client)) is not None:
        pytest.skip(lacking)
    command, folder = interpreter(client, tmp_path)
    disconnects = platform.disconnects()
    environ = {**os.environ, **platform.variables, "LITELLM_LOCAL_MODEL_COST_MAP": "True", "NO_COLOR": "1"}
    environ |= {"HOME": str(tmp_path), "OTEL_SDK_DISABLED": "true"}
    done = subprocess.run(
        [*command, client.program], cwd=folder, env=environ, capture_output=True, text=True, timeout=500, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["results"] == dict.fromkeys(client.offers, True), done.stderr[-6000:]
    if "cancel" in client.offers:
        wait_until(
            lambda: platform.disconnects() > disconnects and platform.simulator.running() == 0,
            seconds=20,
            what=lambda: f"the engine did not stop: {platform.simulator.running()} sequences run",
        )
    row = row_of(client, found["version"])
    if os.environ.get("QUARTERDECK_WRITE"):
        PAGE.write_text(with_row(PAGE.read_text(encoding="utf-8"), client, row), encoding="utf-8")
    assert row in PAGE.read_text(encoding="utf-8").splitlines(), f"docs/clients.md lacks this row: {row}"


def test_token_ids_are_refused_where_the_model_is_configured_so(platform: Platform) -> None:
    """LangChain's default sends ids of OpenAI's tokenizer (which it downloads, so it can't be run here)."""
    where = {name.removeprefix("OPENAI_").lower(): value for name, value in platform.variables.items()}
    with openai.OpenAI(**where) as client:
        assert len(client.embeddings.create(model=EMBEDDING_MODEL, input=[[9906, 1917]]).data) == 1
        assert len(client.embeddings.create(model=STRICT_MODEL, input=["Hello world"]).data) == 1
        with pytest.raises(openai.BadRequestError, match="check_embedding_ctx_length=False") as caught:
            client.embeddings.create(model=STRICT_MODEL, input=[[9906, 1917]])
    assert caught.value.code == "token_ids_not_supported"


def row_of(client: Client, version: str) -> str:
    name = f"[{client.title}](guides/{client.guide})" if client.guide else client.title
    marks = " | ".join("✓" if feature in client.offers else "–" for feature in FEATURES)
    return f"| {name} | {version} | {marks} |"


def with_row(page: str, client: Client, row: str) -> str:
    """The page with the client's row replaced, or added at the end of the table."""
    lines = page.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("| client | version |"))
    end = next(i for i in range(start, len(lines)) if not lines[i].startswith("|"))
    title = re.compile(rf"\| \[?{re.escape(client.title)}(\]|  ?\|)")
    at = next((i for i in range(start, end) if title.match(lines[i])), None)
    lines[end:end] = [row] if at is None else []
    if at is not None:
        lines[at] = row
    return "\n".join(lines) + "\n"


def test_the_table_lists_the_clients_that_are_run_and_no_other() -> None:
    page = PAGE.read_text(encoding="utf-8")
    table = page[page.index("| client | version |") :].split("\n\n")[0].splitlines()[2:]
    titles = [re.sub(r"^\| \[?(.*?)(\]\(.*?\))? \|.*", r"\1", row) for row in table]
    assert sorted(titles) == sorted(client.title for client in CLIENTS.values())
    assert len(CLIENTS) >= 10


def test_every_client_has_a_guide() -> None:
    for client in CLIENTS.values():
        assert client.guide is None or (ROOT / "docs/guides" / client.guide).is_file(), client.title
