"""README.md followed as a reader would, in a fresh copy of the checkout, with the simulated engine.

`make run` with vLLM is what tests/e2e start.
"""

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.platform import free_port
from tests.servers import short_folder, wait_until

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"(?P<not_run><!-- not run: [^>]+ -->\n)?```(?P<language>sh|python)\n(?P<code>.*?)```", re.DOTALL)


def blocks(language: str) -> list[str]:
    return [found["code"] for found in BLOCK.finditer(PAGE) if found["language"] == language and not found["not_run"]]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The files that a clone would have."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        check=True,
        capture_output=True,
    ).stdout
    names = [name for name in listed.decode().split("\0") if name and (ROOT / name).is_file()]
    copy = tmp_path / "quarterdeck"
    copy.mkdir()
    subprocess.run(
        ["tar", "--create", "--null", "--files-from=-", "--file", str(tmp_path / "all.tar")],
        cwd=ROOT,
        input="\0".join(names).encode(),
        check=True,
    )
    subprocess.run(["tar", "--extract", "--file", str(tmp_path / "all.tar")], cwd=copy, check=True)
    return copy


@pytest.fixture
def environ() -> Iterator[dict[str, str]]:
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("OPENAI_", "QUARTERDECK_"))}
    ours["PATH"] = os.pathsep.join(part for part in ours["PATH"].split(os.pathsep) if ".envs" not in part)
    folder = short_folder()
    ports = {f"QUARTERDECK_{part}_PORT": str(free_port()) for part in ("WORKER", "ENGINE")}
    yield {**ours, **ports, "QUARTERDECK_STATE": str(folder)}
    shutil.rmtree(folder)


@pytest.mark.long
@pytest.mark.timeout(400)
def test_a_reader_who_follows_it_word_by_word_gets_an_answer(checkout: Path, environ: dict[str, str]) -> None:
    first, *others = blocks("sh")
    assert [line.split("#")[0].strip() for line in first.splitlines()] == ["make run", "make test"]
    log = checkout / "run.log"
    with log.open("wb") as output:
        platform = subprocess.Popen(
            ["make", "run", "ENGINE=sim", f"PORT={free_port()}"],
            cwd=checkout,
            env=environ,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        wait_until(
            lambda: "Chat is ready" in log.read_text() or platform.poll() is not None,
            seconds=240,
            what=lambda: log.read_text()[-3000:],
        )
        assert platform.poll() is None, log.read_text()[-3000:]
        (hello,) = blocks("python")
        (checkout / "hello.py").write_text(hello)
        script = "\n".join([others[0], "python hello.py", *others[1:]])
        script = re.sub(r"^(quarterdeck doctor.*?)(#.*)?$", r"\1 || true", script, flags=re.MULTILINE)
        done = subprocess.run(
            ["bash", "-euxo", "pipefail", "-c", script],
            cwd=checkout,
            env=environ,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr[-4000:]}"
        assert "sk-qd-" in done.stdout, "no key was made"
        missing = [line for line in done.stdout.splitlines() if line.startswith("missing")]
        assert all("engine environment" in line for line in missing), "the simulated engine needs nothing else"
    finally:
        if platform.poll() is None:
            os.killpg(platform.pid, signal.SIGINT)
        platform.wait(60)


def test_readme_says_what_its_snippets_need() -> None:
    (hello,) = blocks("python")
    assert "temperature=0" in hello
    for named in ("pip install openai", "docs/keys-and-budgets.md", "hello.py"):
        assert named in PAGE
