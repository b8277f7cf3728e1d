"""kubectl, for commands that look into a cluster: it has the user's context, credentials and plugins for signing in."""

import queue
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from quarterdeck.kube import nesting

CALL_S = 60
"""Signing in by a plugin may take a user's time; an API server that does not answer ends by `--request-timeout`."""
FORWARD_S = 20
NO_CONTEXT = "context was not found"
"""In kubectl's message."""


class KubectlError(click.ClickException):
    """kubectl is missing or failed; the message is one line."""


class Kubectl:
    """kubectl in one context and namespace. None: kubectl's own."""

    def __init__(self, context: str | None = None, namespace: str | None = None) -> None:
        self.context = context
        self.namespace = namespace
        self._options = [
            *(["--context", context] if context else []),
            *(["--namespace", namespace] if namespace else []),
        ]

    def within(self, namespace: str) -> "Kubectl":
        return Kubectl(self.context, namespace)

    def text(self, *arguments: str) -> str:
        """Its standard output. Raises KubectlError."""
        command = [_program(), *self._options, "--request-timeout=15s", *arguments]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=CALL_S, check=False)  # noqa: S603
        except subprocess.TimeoutExpired:
            raise KubectlError(f"kubectl {arguments[0]} did not end within {CALL_S} s") from None
        if done.returncode:
            message = _one_line(done.stderr) or f"kubectl {arguments[0]} failed ({done.returncode})"
            if self.context is not None and NO_CONTEXT in done.stderr:
                message = f"no context '{self.context}': neither saved (`quarterdeck context list`) nor in kubeconfig"
            raise KubectlError(message)
        return done.stdout

    def json(self, *arguments: str) -> dict[str, Any]:
        """Its output as a JSON object. Raises KubectlError."""
        try:
            found = nesting.loads(self.text(*arguments, "--output=json").encode())
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise KubectlError(f"kubectl {' '.join(arguments[:2])} did not return a JSON object")
        return found

    def items(self, kind: str, *options: str) -> list[dict[str, Any]]:
        """The objects of a kind. Raises KubectlError."""
        found: list[dict[str, Any]] = self.json("get", kind, *options)["items"]
        return found

    @contextmanager
    def forwarded(self, target: str, port: int) -> Iterator[str]:
        """Forward a free local port to a port of `target` (`service/name`); the URL while the block runs."""
        command = [_program(), *self._options, "port-forward", "--address=127.0.0.1", target, f":{port}"]
        process = subprocess.Popen(  # noqa: S603
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        try:
            yield f"http://127.0.0.1:{_local_port(process, target)}"
        finally:
            process.terminate()
            process.communicate()


def _local_port(process: "subprocess.Popen[str]", target: str) -> int:
    """The port of the line `Forwarding from 127.0.0.1:40123 -> 8000`. Raises KubectlError."""
    lines: queue.Queue[str] = queue.Queue()
    output = process.stdout

    def read() -> None:  # to the end, so that kubectl's line for each connection does not fill the pipe
        for line in output or ():
            lines.put(line)
        lines.put("")

    threading.Thread(target=read, daemon=True).start()
    try:
        line = lines.get(timeout=FORWARD_S)
    except queue.Empty:
        raise KubectlError(f"kubectl port-forward {target} did not start within {FORWARD_S} s") from None
    if "127.0.0.1:" not in line:
        errors = process.stderr.read() if process.stderr else ""
        raise KubectlError(f"kubectl port-forward {target}: {_one_line(errors) or 'it ended'}")
    return int(line.split("127.0.0.1:")[1].split()[0])


def _program() -> str:
    found = shutil.which("kubectl")
    if found is None:
        raise KubectlError("kubectl is not on PATH: install it, or use --url and --key-file with the gateway's address")
    return found


def _one_line(text: str) -> str:
    """kubectl's last line: before it, its client may repeat the same error with times."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1].removeprefix("error: ") if lines else ""
