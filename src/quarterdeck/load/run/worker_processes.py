"""Worker processes that a master starts and stops on its own machine."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence

GRACE_SECONDS = 5.0


class WorkersError(Exception):
    """Workers did not start; the message is one line."""


class WorkerProcesses:
    """N processes of `python -m quarterdeck.load run --role worker …`."""

    def __init__(self, count: int, arguments: Sequence[str], environ: Mapping[str, str]) -> None:
        self._count = count
        self._arguments = list(arguments)
        self._environ = dict(environ)
        self._children: list[subprocess.Popen[bytes]] = []
        self.port = _free_port()

    def start(self) -> None:
        command = [sys.executable, "-m", "quarterdeck.load", "run", *self._arguments]
        command += ["--role", "worker", "--master", f"127.0.0.1:{self.port}", "--die-with-parent"]
        for _ in range(self._count):
            # Own process group: only the master gets the terminal's Ctrl-C, and passes it on.
            child = subprocess.Popen(command, env=self._environ, stdin=subprocess.DEVNULL, process_group=0)  # noqa: S603
            self._children.append(child)

    def ended(self) -> str:
        """The workers that exited with an error, as text; empty: none."""
        found = [f"{child.pid} with status {child.returncode}" for child in self._children if child.poll()]
        return ", ".join(found)

    def stop(self) -> None:
        """Wait for the workers, which the master has asked to quit, then kill the rest."""
        deadline = time.monotonic() + GRACE_SECONDS
        while any(child.poll() is None for child in self._children) and time.monotonic() < deadline:
            time.sleep(0.05)
        for child in self._children:
            if child.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child.pid, signal.SIGKILL)
                child.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
