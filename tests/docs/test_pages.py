"""Blocks of pages marked with this file, run on a platform with the simulated engine, in the order of their page."""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.platform import free_port
from tests.servers import short_folder, wait_until

ROOT = Path(__file__).resolve().parents[2]
MARK = "tests/docs/test_pages.py"
BLOCK = re.compile(rf"^<!-- run by: {MARK} -->\n```(?P<language>\w+)\n(?P<code>.*?)^```", re.DOTALL | re.MULTILINE)
PAGES = [page for page in sorted((ROOT / "docs").rglob("*.md")) if MARK in page.read_text(encoding="utf-8")]
MODELS = {"qwen", "chat", "smollm2"}
"""Names of models in pages that are not `make run`'s."""

CHAT = '{"model": "smollm2-135m-instruct", "messages": [{"role": "user", "content": "Hi"}]}'
FILES = {
    "notes.md": "# Open\n",
    "requests.jsonl": f'{{"custom_id": "1", "method": "POST", "url": "/v1/chat/completions", "body": {CHAT}}}\n',
}
"""Of the reader, which pages name."""


@pytest.fixture(scope="module")
def environ() -> Iterator[dict[str, str]]:
    """The variables of `quarterdeck env`, for a platform that runs."""
    folder = short_folder()
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("OPENAI_", "QUARTERDECK_"))}
    ports = {f"QUARTERDECK_{part}_PORT": str(free_port()) for part in ("WORKER", "ENGINE")}
    scripts = Path(sys.executable).parent
    ours |= {**ports, "QUARTERDECK_STATE": str(folder), "PATH": f"{scripts}:{ours['PATH']}"}
    log = folder / "up.log"
    with log.open("wb") as output:
        command = [str(scripts / "quarterdeck"), "up", "--engine", "sim", "--port", str(free_port())]
        platform = subprocess.Popen(command, env=ours, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        wait_until(
            lambda: "Chat is ready" in log.read_text() or platform.poll() is not None,
            seconds=240,
            what=lambda: log.read_text()[-3000:],
        )
        assert platform.poll() is None, log.read_text()[-3000:]
        lines = subprocess.run(["quarterdeck", "env"], env=ours, capture_output=True, text=True, check=True).stdout
        yield ours | dict(line.removeprefix("export ").split("=", 1) for line in lines.splitlines())
    finally:
        if platform.poll() is None:
            os.killpg(platform.pid, signal.SIGINT)
        platform.wait(60)
        shutil.rmtree(folder)


@pytest.mark.long
@pytest.mark.timeout(400)
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_the_blocks_of_a_page_work(page: Path, environ: dict[str, str], tmp_path: Path) -> None:
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    for found in BLOCK.finditer(page.read_text(encoding="utf-8")):
        code = found["code"].replace("sk-qd-…", environ["OPENAI_API_KEY"])
        code = re.sub("http://(127.0.0.1|localhost):8000", environ["OPENAI_BASE_URL"].removesuffix("/v1"), code)
        code = re.sub('model="(\\w+)"', lambda m: 'model="smollm2-135m-instruct"' if m[1] in MODELS else m[0], code)
        code = re.sub(r"^\$ ", "", code, flags=re.MULTILINE)
        command = [sys.executable, "-c"] if found["language"] == "python" else ["bash", "-euxo", "pipefail", "-c"]
        done = subprocess.run(
            [*command, code],
            cwd=tmp_path,
            env=environ,
            input="y\n" * 9,  # to questions
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        assert done.returncode == 0, f"{code}\n{done.stdout}\n{done.stderr[-4000:]}"
