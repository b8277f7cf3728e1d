"""The platform's processes for tests: a simulated engine and a gateway, on their own ports."""

import http.client
import itertools
import json
import os
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.servers import ServerProcess


class DoorProcess(ServerProcess):
    """`python -m quarterdeck.<door>`, a door that serves HTTP."""

    def __init__(self, folder: Path, name: str, ready_path: str) -> None:
        super().__init__()
        self.port = free_port()
        self.log = folder / f"{name}.log"
        self._ready_path = ready_path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def answers(self) -> bool:
        assert self.process is not None
        if (status := self.process.poll()) is not None:
            raise RuntimeError(f"ended with {status}: {self.log.read_text(errors='replace')[-4000:]}")
        try:
            return self.get(self._ready_path)[0] == 200
        except (OSError, http.client.HTTPException):
            return False

    def get(self, path: str) -> tuple[int, Any]:
        """GET without a key. Returns the status, and the JSON or text."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            text = response.read().decode()
        finally:
            connection.close()
        is_json = (response.getheader("content-type") or "").startswith("application/json")
        return response.status, json.loads(text) if is_json and text else text


class SimulatorProcess(DoorProcess):
    """A simulated engine. `options` are its command line (`--time-to-first-token 20ms`)."""

    def __init__(self, folder: Path, options: Sequence[str], name: str = "simulator") -> None:
        super().__init__(folder, name, "/health")
        self._options = list(options)

    def command(self) -> list[str]:
        module = ["-m", "quarterdeck.simulator"]
        return [sys.executable, *module, "--port", str(self.port), *self._options]

    def running(self) -> float:
        """Return the number of running sequences of all models, from the engine's metrics."""
        _, text = self.get("/metrics")
        lines = [line for line in text.splitlines() if line.startswith("vllm:num_requests_running{")]
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines)


class GatewayProcess(DoorProcess):
    """A gateway. It has started once `ready_path` answers 200."""

    def __init__(
        self, folder: Path, config: str, environ: Mapping[str, str], name: str = "gateway", ready_path: str = "/readyz"
    ) -> None:
        super().__init__(folder, name, ready_path)
        self.config = folder / f"{name}.yaml"
        self.config.write_text(config)
        self._environ = {
            "QUARTERDECK_CONFIG": str(self.config),
            "QUARTERDECK_STATE": str(folder / "state"),
            "QUARTERDECK_CACHE": str(folder / "cache"),
            "QUARTERDECK_PORT": str(self.port),
            **environ,
        }

    def command(self) -> list[str]:
        words = [f"{name}={value}" for name, value in self._environ.items()]
        return ["env", "-u", "QUARTERDECK_HOST", *words, sys.executable, "-m", "quarterdeck.gateway"]

    def log_lines(self) -> list[dict[str, Any]]:
        """Return the JSON log lines so far."""
        lines = self.log.read_text().splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]


PORTS = range(20_000, 30_000)
"""Below those that the kernel takes for connections: one of these could take a port before its server binds it."""
_next = itertools.count(os.getpid() * 7919)


def free_port() -> int:
    """Return a port that nothing listens on, each once in a process."""
    for _ in PORTS:
        port = PORTS[next(_next) % len(PORTS)]
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
    raise RuntimeError("no port is free")
