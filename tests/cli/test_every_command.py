"""Every command against a platform elsewhere, by its URL and the key of an organisation's admin."""

import asyncio
import json
import os
import shlex
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from tests.cli.command_table import ELSEWHERE, LISTINGS, SCENARIO, WITHOUT_JSON, Line, leaves
from tests.cli.on_terminal import on_terminal
from tests.cli.running import running
from tests.platform import DoorProcess, GatewayProcess, SimulatorProcess
from tests.servers import short_folder

from quarterdeck.cli.__main__ import cli
from quarterdeck.cli.table_layout import text_width
from quarterdeck.store.database import Database
from quarterdeck.store.keys import KeyStore

CONFIG = """
models:
  - {name: chat, engine: {source: ./chat}, price: {input: "1", output: "2"}}
content: {capture: full}
"""
PATIENCE_SECONDS = 120.0
"""For a record to be stored: a busy machine may take long. It costs nothing where it does not."""
KEY = "sk-qd-" + "b" * 40
BATCH_LINE = '{"custom_id": "1", "method": "POST", "url": "/v1/chat/completions", "body": {"model": "chat"}}'
PROMPT = "name: greet\ntext: Hello {{ name }}\nvariables: {name: {}}\n"


class WorkerProcess(DoorProcess):
    def __init__(self, folder: Path, environ: dict[str, str]) -> None:
        super().__init__(folder, "worker", "/readyz")
        self._environ = {**environ, "QUARTERDECK_WORKER_PORT": str(self.port)}

    def command(self) -> list[str]:
        words = [f"{name}={value}" for name, value in self._environ.items()]
        return ["env", "-u", "QUARTERDECK_HOST", *words, sys.executable, "-m", "quarterdeck.worker"]


@dataclass
class Far:
    """A platform elsewhere."""

    url: str
    folder: Path

    def environ(self, home: Path) -> dict[str, str]:
        """A machine that has no platform of its own."""
        mine = {"QUARTERDECK_STATE": str(home / "none"), "QUARTERDECK_CONTEXTS": str(home / "contexts.toml")}
        return {**mine, "QUARTERDECK_URL": self.url, "QUARTERDECK_KEY": KEY}


@pytest.fixture
def far(redis_url: str) -> Iterator[Far]:
    folder = short_folder()
    simulator = SimulatorProcess(folder, ["--model", "chat"])
    environ = {
        "QUARTERDECK_REDIS_URL": redis_url,
        "QUARTERDECK_DATABASE_URL": f"sqlite+aiosqlite:///{folder}/quarterdeck.db",
        "QUARTERDECK_STATE": str(folder / "state"),
        "QUARTERDECK_CACHE": str(folder / "cache"),
    }
    simulator.start()
    asyncio.run(_seed(environ["QUARTERDECK_DATABASE_URL"]))
    gateway = GatewayProcess(folder, CONFIG, {**environ, "QUARTERDECK_ENGINE_URL": simulator.url})
    worker = WorkerProcess(folder, {**environ, "QUARTERDECK_CONFIG": str(gateway.config)})
    try:
        gateway.start()
        worker.start()
        yield Far(gateway.url, folder)
    finally:
        for process in (worker, gateway, simulator):
            process.stop()
        shutil.rmtree(folder)


async def _seed(url: str) -> None:
    database = Database(url)
    await database.migrate()
    await KeyStore(database).create(secret=KEY, name="boss", org="acme", is_admin=True)
    await database.close()


def test_the_table_names_every_command() -> None:
    commands = {path for path, _ in leaves(cli)}
    driven = {path for path in commands for line in SCENARIO if f"{line.words} ".startswith(f"{path} ")}
    assert commands - driven - set(ELSEWHERE) == set()
    assert set(ELSEWHERE) - commands == set()


def test_every_command_that_shows_something_has_json() -> None:
    have = {path for path, command in leaves(cli) if any("--json" in param.opts for param in command.params)}
    commands = {path for path, _ in leaves(cli)}
    assert commands - have - set(WITHOUT_JSON) == set()
    assert set(WITHOUT_JSON) & have == set()


@pytest.mark.long
@pytest.mark.timeout(600)
def test_every_command_works_elsewhere_with_an_org_admins_key(far: Far, tmp_path: Path) -> None:
    folder = tmp_path / "prompts"
    (folder / "next").mkdir(parents=True)
    (folder / "greet.yaml").write_text(PROMPT)
    requests = tmp_path / "requests.jsonl"
    requests.write_text(BATCH_LINE)
    values = {"url": far.url, "key": KEY, "folder": str(folder), "requests": str(requests)}
    failures = []
    for line in SCENARIO:
        if "/next/" in line.words:
            (folder / "next" / "greet.yaml").write_text(PROMPT.replace("Hello", "Good day,"))
        recorded = line.says.format(**values) if line.words.startswith("requests ") else None
        done = _run(far, tmp_path, line.words.format(**values), recorded=recorded)
        if problem := _problem(line, done, values):
            failures.append(f"{line.words}: {problem}\n{done.output}")
        _keep(line, done, values)
    assert failures == []


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_listings_fit_terminals_of_60_and_200_columns(far: Far, tmp_path: Path) -> None:
    (tmp_path / "greet.yaml").write_text(PROMPT)
    (tmp_path / "requests-of-the-nightly-run.jsonl").write_text(BATCH_LINE)
    name = "a-notebook-of-somebody"
    for words in (
        f"keys create {name} --team retrieval-and-search --budget 5 --requests-per-minute 100 --model chat",
        f"prompts create {tmp_path}/greet.yaml",
        "webhooks create https://example.com/a/long/path/of/a/hook --name somebody",
        f"batches create {tmp_path}/requests-of-the-nightly-run.jsonl",
        "chat -m chat hello",
    ):
        assert _run(far, tmp_path, words).exit_code == 0
    assert _run(far, tmp_path, "requests list", recorded="chat").exit_code == 0
    identity = json.loads(_run(far, tmp_path, "requests list --json").stdout)["data"][0]["id"]
    assert _run(far, tmp_path, f"feedback create {identity} --thumbs up").exit_code == 0
    environ = {**os.environ, **far.environ(tmp_path)}
    for words in LISTINGS:
        shown = on_terminal(words, environ, 60)
        assert [line for line in shown if text_width(line) > 60] == [], words
        assert shown[0], words
        if words == "keys list":
            assert any(line.startswith("not shown here: CREATED, KEY") for line in shown), shown
            assert any("key_" in line for line in shown)
    for words in ("keys list", "requests list"):  # the widest
        shown = on_terminal(words, environ, 200)
        assert [line for line in shown if text_width(line) > 200 or "not shown here" in line] == [], words


@pytest.mark.long
@pytest.mark.timeout(300)
def test_requests_are_followed_elsewhere_until_ctrl_c(far: Far, tmp_path: Path) -> None:
    environ = {**os.environ, **far.environ(tmp_path)}
    program = [sys.executable, "-m", "quarterdeck.cli"]
    with running([*program, "requests", "tail", "--json"], environ, patience=5) as tail:
        while True:  # until it is connected, which it does not say
            _run(far, tmp_path, "chat -m chat hello")
            try:
                assert json.loads(tail.until("{"))["model"] == "chat"
                break
            except AssertionError:
                assert tail.process.poll() is None, tail.output
        assert tail.interrupt() == 1


def _run(far: Far, home: Path, words: str, *, recorded: str | None = None) -> Result:
    """Run a command; again until its output has `recorded`, which the worker stores a moment after a request. Again,
    too, where SQLite's disk is so busy that the platform asks to (503)."""
    until = time.monotonic() + PATIENCE_SECONDS
    while True:
        done = CliRunner().invoke(cli, shlex.split(words), env=far.environ(home))
        is_missing = recorded is not None and (done.exit_code != 0 or recorded not in done.output)
        if not (is_missing or "(status 503)" in done.output) or time.monotonic() > until:
            return done
        time.sleep(0.1)


def _problem(line: Line, done: Result, values: dict[str, str]) -> str | None:
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        return repr(done.exception)
    if done.exit_code != line.exit_code:
        return f"exit status {done.exit_code}"
    if line.says.format(**values) not in done.output:
        return f"does not say {line.says!r}"
    if line.exit_code == 1 and done.stderr and not done.stderr.startswith(("Error: ", "not delivered")):
        return "is not one line"
    return None


def _keep(line: Line, done: Result, values: dict[str, str]) -> None:
    name, _, member = line.keeps.partition("=")
    if member:
        found: Any = json.loads(done.stdout)
        for part in member.split("."):
            found = found[int(part)] if part.isdecimal() else found[part]
        values[name] = str(found)
    elif name:
        values[name] = done.stdout.split()[0]
