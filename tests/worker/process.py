"""The worker as a process, configured by its environment."""

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

END_SECONDS = 30.0


class WorkerProcess:
    """Started when created; `lines` is its log so far."""

    def __init__(self, state: Path, environment: Mapping[str, str], *arguments: str) -> None:
        ours = {"QUARTERDECK_STATE": str(state), "QUARTERDECK_WORKER_PORT": "0", "PYTHONPATH": "src"}
        self.lines: list[dict[str, Any]] = []
        self._arriving: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "quarterdeck.worker", *arguments],
            env={"PATH": os.environ["PATH"], **ours, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr as stream:
            for line in stream:
                self._arriving.put(json.loads(line) if line.startswith("{") else {"message": line, "level": "?"})
        self._arriving.put(None)

    def wait_for_line(self, text: str, seconds: float = END_SECONDS) -> dict[str, Any]:
        """Return the next log line whose message contains `text`."""
        while (line := self._arriving.get(timeout=seconds)) is not None:
            self.lines.append(line)
            if text in line["message"]:
                return line
        raise AssertionError(f"the worker ended without logging {text!r}: {self.lines}")

    def wait_until_started(self) -> int:
        """Return the port of its status server."""
        return int(self.wait_for_line("worker started")["port"])

    def terminate(self) -> int:
        """Send SIGTERM. Returns the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.wait()

    def kill(self) -> None:
        self.process.kill()
        self.wait()

    def wait(self) -> int:
        status = self.process.wait(END_SECONDS)
        self._reader.join(END_SECONDS)
        while not self._arriving.empty():
            if (line := self._arriving.get()) is not None:
                self.lines.append(line)
        return status


def get(port: int, path: str) -> tuple[int, str]:
    """GET from the worker's status port. Returns status and body."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()
