"""Offline runs on a real Ray with simulated engines: each request once, also when the run is killed in the middle."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.servers import short_folder, wait_until

from quarterdeck import processes

CHECKOUT = Path(__file__).resolve().parents[3]
CONFIG = """
models:
  - name: chat
    engine: {source: ./chat, context: 4096}
  - name: emb
    engine: {source: ./emb, task: embed}
"""
CHAT = "/v1/chat/completions"

pytestmark = [pytest.mark.long, pytest.mark.timeout(1200)]  # each starts a Ray


class Offline:
    """A folder with a file of requests, and runs of it."""

    def __init__(self, folder: Path) -> None:
        assert (CHECKOUT / ".envs/engine/bin/python").exists(), "the engine's environment is missing: make setup"
        self.folder = folder
        self.source = folder / "in.jsonl"
        (folder / "quarterdeck.yaml").write_text(CONFIG)

    def write(self, count: int, *, invalid: frozenset[int] = frozenset()) -> None:
        lines = []
        for at in range(count):
            body = {"model": "chat", "messages": [{"role": "user", "content": f"Say {at}."}], "max_tokens": 20}
            if at in invalid:
                body["temperature"] = 99
            lines.append({"custom_id": f"line-{at}", "method": "POST", "url": CHAT, "body": body})
        self.source.write_text("\n".join(map(json.dumps, lines)))

    def start(self, *words: str) -> "subprocess.Popen[str]":
        environ = {name: value for name, value in os.environ.items() if not name.startswith("QUARTERDECK_")}
        environ |= {
            "QUARTERDECK_STATE": str(self.folder / "state"),
            "QUARTERDECK_CONFIG": str(self.folder / "quarterdeck.yaml"),
        }
        command = [
            sys.executable,
            "-m",
            "quarterdeck.cli",
            "batch",
            "run",
            str(self.source),
            "--ray",
            "--engine",
            "sim",
        ]
        return subprocess.Popen(
            [*command, *words, "--json"],
            env=environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=CHECKOUT,
        )

    def lines(self, name: str) -> list[Any]:
        path = self.folder / name
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@pytest.fixture
def offline() -> Iterator[Offline]:
    folder = short_folder()
    yield Offline(folder)
    shutil.rmtree(folder, ignore_errors=True)


def test_every_request_is_in_one_of_the_files(offline: Offline) -> None:
    offline.write(100, invalid=frozenset({3, 50}))
    run = offline.start("--replicas", "2")
    shown, noise = run.communicate(timeout=600)
    assert run.returncode == 1, noise
    done = json.loads(shown)
    assert done["request_counts"] == {"total": 100, "completed": 98, "failed": 2}
    output, errors = offline.lines("in.output.jsonl"), offline.lines("in.errors.jsonl")
    assert Counter(each["custom_id"] for each in output + errors) == Counter(f"line-{at}" for at in range(100))
    assert {each["custom_id"] for each in errors} == {"line-3", "line-50"}
    assert errors[0]["response"]["status_code"] == 400 and errors[0]["response"]["body"]["error"]["message"]
    assert output[0]["response"]["body"]["choices"][0]["message"]["content"]
    tokens = sum(each["response"]["body"]["usage"]["completion_tokens"] for each in output)
    assert done["usage"]["output_tokens"] == tokens and done["requests_per_second"] > 0


def test_a_run_that_is_killed_goes_on_and_repeats_nothing_that_is_stored(offline: Offline) -> None:
    offline.write(400)
    part = offline.folder / "in.output.jsonl.part"
    slow = ("--sim", "time-to-first-token=1s", "--sim", "max-num-seqs=16")
    for sig in (signal.SIGKILL, signal.SIGTERM):
        run = offline.start(*slow)
        before = len(part.read_bytes().splitlines()) if part.exists() else 0

        def has_more(before: int = before, run: Any = run) -> bool:
            assert run.poll() is None, run.stderr.read()
            return part.exists() and len(part.read_bytes().splitlines()) > before

        wait_until(has_more, seconds=600)
        tree = processes.descendants(run.pid)
        run.send_signal(sig)
        for each in tree if sig == signal.SIGKILL else ():
            with contextlib.suppress(ProcessLookupError):
                os.kill(each.pid, sig)
        run.communicate(timeout=120)
        assert run.returncode == (-signal.SIGKILL if sig == signal.SIGKILL else 130)
        alive = [each.pid for each in tree]
        wait_until(lambda: not any(map(processes.is_alive, alive)), seconds=120)  # noqa: B023
    stored = [json.loads(line)["id"] for line in part.read_bytes().splitlines() if line.endswith(b"}")]
    run = offline.start()
    shown, noise = run.communicate(timeout=600)
    assert run.returncode == 0, noise
    done = json.loads(shown)
    assert done["executed"] <= 400 - len(stored) + 1 and done["request_counts"]["completed"] == 400
    output = offline.lines("in.output.jsonl")
    assert Counter(each["custom_id"] for each in output) == Counter(f"line-{at}" for at in range(400))
    assert [each["id"] for each in output][: len(stored)] == stored
    assert sorted(path.name for path in offline.folder.glob("in.*")) == ["in.jsonl", "in.output.jsonl"]


def test_a_model_without_an_engine_is_refused_in_words(offline: Offline) -> None:
    offline.write(1)
    offline.source.write_text(offline.source.read_text().replace('"chat"', '"other"'))
    run = offline.start()
    _, noise = run.communicate(timeout=600)
    assert run.returncode == 1 and "no engine for the model 'other'" in noise
