"""The real stack as a user starts it: `quarterdeck up`, with Ray Serve, vLLM, Redis, worker and gateway."""

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import httpx
import openai
from tests.platform import free_port

CHECKOUT = Path(__file__).resolve().parents[2]
ENGINE_PYTHON = CHECKOUT / ".envs" / "engine" / "bin" / "python"
CHAT = "smollm2-135m-instruct"
EMBED = "all-minilm-l6-v2"
START_SECONDS = 600.0
"""A slow host may take four times the usual minute and a half."""

T = TypeVar("T")


class Stack:
    """A running platform in its own folder."""

    def __init__(self, folder: Path, config: str) -> None:
        self.folder = folder
        self.port, engine_port, worker_port = free_port(), free_port(), free_port()
        self.engine_url = f"http://127.0.0.1:{engine_port}"
        self.base_url = f"http://127.0.0.1:{self.port}"
        self.log = folder / "up.log"
        (folder / "quarterdeck.yaml").write_text(config)
        environ = {name: value for name, value in os.environ.items() if not name.startswith(("QUARTERDECK_", "OTEL_"))}
        environ |= {
            "QUARTERDECK_STATE": str(folder / "state"),
            "QUARTERDECK_CONFIG": str(folder / "quarterdeck.yaml"),
            "QUARTERDECK_ENGINE_PORT": str(engine_port),
            "QUARTERDECK_WORKER_PORT": str(worker_port),
        }
        self.environ = environ
        self.process: subprocess.Popen[bytes] | None = None
        self._client: openai.OpenAI | None = None

    def start(self) -> None:
        """Start and wait until every model is ready."""
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "quarterdeck.cli", "up", "--engine", "vllm", "--port", str(self.port)],
                env=self.environ,
                stdout=log,
                stderr=log,
                cwd=CHECKOUT,
            )
        self.wait(self._all_ready, START_SECONDS)

    def stop(self) -> None:
        """Stop as by Ctrl-C. `up` ends every process."""
        client, self._client = self._client, None
        if client is not None:
            client.close()
        process, self.process = self.process, None
        if process is None:
            return
        process.send_signal(signal.SIGINT)
        try:
            process.wait(120)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise

    def wait(self, ask: Callable[[], T | None], seconds: float = 60.0) -> T:
        """Poll until `ask` returns a value."""
        deadline = time.monotonic() + seconds
        while True:
            if (answer := ask()) is not None:
                return answer
            if self.process is not None and self.process.poll() is not None:
                raise AssertionError(f"`up` ended with {self.process.returncode}:\n{self.logs()}")
            if time.monotonic() > deadline:
                raise AssertionError(f"no result within {seconds} s:\n{self.logs()}")
            time.sleep(0.05)

    def logs(self) -> str:
        """Return the ends of `up`'s output and of the logs."""
        parts = [self.log.read_text(errors="replace")[-3000:]]
        for path in sorted((self.folder / "state" / "logs").glob("*.log")):
            parts.append(f"--- {path.name}\n{path.read_text(errors='replace')[-3000:]}")
        return "\n".join(parts)

    def client(self) -> openai.OpenAI:
        """Return the real SDK without retries. Closed with the stack: a collected one may leak its socket."""
        if self._client is None:
            self._client = openai.OpenAI(base_url=f"{self.base_url}/v1", api_key=self.key, max_retries=0, timeout=300)
        return self._client

    @property
    def key(self) -> str:
        return self.credential("api_key")

    def credential(self, name: str) -> str:
        text = (self.folder / "state" / "credentials").read_text()
        line = next(line for line in text.splitlines() if line.startswith(name))
        return line.partition("=")[2].strip().strip('"')

    def http(self) -> httpx.Client:
        headers = {"authorization": f"Bearer {self.key}"}
        return httpx.Client(base_url=self.base_url, headers=headers, timeout=300, trust_env=False)

    def endpoints(self) -> list[dict[str, Any]]:
        with urllib.request.urlopen(f"{self.engine_url}/endpoints", timeout=5) as answer:
            found: list[dict[str, Any]] = json.load(answer)["endpoints"]
        return found

    def replica(self, model: str) -> str:
        """The URL of the model's one replica."""
        return next(str(row["url"]) for row in self.endpoints() if row["model"] == model)

    def running(self, model: str) -> float:
        """Return the number of running sequences, from vLLM's metrics."""
        with urllib.request.urlopen(f"{self.replica(model)}/metrics", timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith("vllm:num_requests_running{"))

    def row(self, request_id: str) -> dict[str, Any]:
        """Wait for the ledger's row of a request and return it."""

        def ask() -> dict[str, Any] | None:
            with contextlib.closing(sqlite3.connect(self.folder / "state" / "quarterdeck.db")) as database:
                database.row_factory = sqlite3.Row
                found = database.execute("select * from ledger where id = ?", (request_id,)).fetchone()
            return dict(found) if found else None

        return self.wait(ask)

    def _all_ready(self) -> bool | None:
        try:
            rows = self.endpoints()
        except OSError:
            return None
        for row in rows:
            assert "failed" not in row.get("detail", ""), f"{row}\n{self.logs()}"
        try:
            with urllib.request.urlopen(f"{self.base_url}/readyz", timeout=5) as answer:
                models = json.load(answer)["models"]
        except (OSError, urllib.error.URLError, ValueError):
            return None
        return True if all(model["state"] == "ready" for model in models.values()) else None


class Stacks:
    """Runs one stack at a time: two would be four engines on two cores."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._current: tuple[str, Stack] | None = None

    def use(self, name: str, config: str) -> Stack:
        if self._current is not None and self._current[0] == name:
            return self._current[1]
        self.stop()
        folder = self._folder / name
        folder.mkdir()
        stack = Stack(folder, config)
        self._current = (name, stack)
        stack.start()
        return stack

    def stop(self) -> None:
        if self._current is not None:
            _, stack = self._current
            self._current = None
            stack.stop()


@contextlib.contextmanager
def stacks(folder: Path) -> Iterator[Stacks]:
    found = Stacks(folder)
    try:
        yield found
    finally:
        found.stop()
