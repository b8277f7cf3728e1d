"""An operator of this checkout as a process on this machine, for one namespace of the cluster."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import yaml

from quarterdeck.net.sockets import free_port


class OperatorProcess:
    """`config` is its configuration file; `kubeconfig` replaces the cluster's (a proxy's)."""

    def __init__(
        self,
        environ: Mapping[str, str],
        namespace: str,
        folder: Path,
        config: Mapping[str, Any],
        *,
        name: str = "operator",
        kubeconfig: Path | None = None,
    ) -> None:
        self.name, self.port = name, free_port()
        self.log = folder / f"{name}.log"
        path = folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump(dict(config)))
        self._environ = {
            **environ,
            "QUARTERDECK_NAMESPACE": namespace,
            "QUARTERDECK_OPERATOR_CONFIG": str(path),
            "QUARTERDECK_OPERATOR_PORT": str(self.port),
            "POD_NAME": name,
            **({"KUBECONFIG": str(kubeconfig)} if kubeconfig is not None else {}),
        }
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> "OperatorProcess":
        with self.log.open("ab") as log:
            command = [sys.executable, "-m", "quarterdeck.operator"]
            self._process = subprocess.Popen(command, env=self._environ, stdout=log, stderr=log)
        return self

    def wait_ready(self) -> "OperatorProcess":
        self.wait(lambda: self.get("/readyz").get("ready") is True, "ready")
        return self

    def wait(self, holds: Any, what: str, seconds: float = 240) -> None:
        """Poll until `holds()`: another process is looked at from outside."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            try:
                if holds():
                    return
            except httpx.HTTPError:
                pass
            time.sleep(0.1)
        raise AssertionError(f"{self.name}: not {what} in {seconds:.0f} s\n{self.log.read_text()[-3000:]}")

    def get(self, path: str) -> dict[str, Any]:
        found: dict[str, Any] = httpx.get(f"http://127.0.0.1:{self.port}{path}", timeout=30).json()
        return found

    @property
    def is_leader(self) -> bool:
        return self.get("/readyz").get("leader") is True

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples with these labels."""
        time.sleep(1.1)  # a rendered page is reused for a second
        page = httpx.get(f"http://127.0.0.1:{self.port}/metrics", timeout=30).text
        total = 0.0
        for line in page.splitlines():
            found = re.fullmatch(rf"{name}(?:\{{(.*)\}})? (\S+)", line)
            if found and all(f'{key}="{value}"' in (found[1] or "") for key, value in labels.items()):
                total += float(found[2])
        return total

    def writes(self) -> float:
        """Writes of the API server so far, without the lease's."""
        name = "quarterdeck_operator_api_calls_total"
        written = sum(self.metric(name, verb=verb) for verb in ("apply", "create", "delete", "patch"))
        return written - self.metric(name, verb="create", kind="Lease")

    def wait_at_rest(self) -> None:
        """Wait until it has written nothing for two seconds, with nothing left to do."""
        before = -1.0

        def rests() -> bool:
            nonlocal before
            last, before = before, self.writes()
            return last == before and self.metric("quarterdeck_operator_queue_objects") == 0

        self.wait(rests, "at rest")

    def kill(self) -> None:
        """End it as a crash does."""
        if self._process is not None and self._process.poll() is None:
            os.kill(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def stop(self) -> int:
        """End it as Kubernetes does. Its exit status."""
        assert self._process is not None
        self._process.terminate()
        return self._process.wait(120)
