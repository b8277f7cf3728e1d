"""An engine of an offline run: a server on this machine's loopback, started again where it ends.

It is a process of its own: what ends it (a request that no memory is left for) does not end the actor that holds the
requests in flight. It answers its actor only, which has its key.
"""

import asyncio
import http.client
import json
import logging
import os
import secrets
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from quarterdeck import processes
from quarterdeck.engine.offline.line_executor import EngineAnswer, EngineLostError
from quarterdeck.engine.ray_start import free_ports
from quarterdeck.net.http_client import HttpClient
from quarterdeck.net.http_connection import Timeouts, UpstreamError
from quarterdeck.net.http_origin import Origin, request_head

log = logging.getLogger(__name__)

LOOPBACK = "127.0.0.1"
START_SECONDS = 1200.0
"""The largest models are read from a disk for that long."""
MAX_STARTS = 3
"""In a row, without an answer between them. Then the engine can't be used."""
ANSWER_SECONDS = 3600.0
MAX_ANSWER_BYTES = 256 * 1024 * 1024
_POLL_SECONDS = 0.2
_LOG_LINES = 5
_CONNECT_SECONDS = 5.0


class EngineFailedError(Exception):
    """The engine does not start, or ends again and again; the message has its last words."""


@dataclass(frozen=True, slots=True)
class ServerCommand:
    """How an engine is started. `{port}` in a word is replaced."""

    words: tuple[str, ...]
    environ: Mapping[str, str]
    """In addition to the actor's."""


def vllm_words(source: str, names: Sequence[str], arguments: Mapping[str, object]) -> tuple[str, ...]:
    """The command line of vLLM's server. `arguments`: as in Python (`Profile.engine_kwargs`)."""
    words = ["-m", "vllm.entrypoints.openai.api_server", "--model", source, "--served-model-name", *names]
    words += ["--host", LOOPBACK, "--port", "{port}", "--uvicorn-log-level", "warning"]
    for argument, value in arguments.items():
        option = argument.replace("_", "-")
        if value is None:
            continue
        if isinstance(value, bool):
            words.append(f"--{option}" if value else f"--no-{option}")
        else:
            words += [f"--{option}", json.dumps(value) if isinstance(value, dict | list) else str(value)]
    return tuple(words)


class EngineServer:
    """`python`: that of the engine's environment. `start` blocks; `post` starts it again where it has ended."""

    def __init__(self, python: str, command: ServerCommand, path: str) -> None:
        self._python, self._command, self._path = python, command, path
        self._process: subprocess.Popen[bytes] | None = None
        self._origin = Origin(LOOPBACK, 0, False)
        self._client: HttpClient | None = None
        self._starting = asyncio.Lock()
        self._starts = 0
        descriptor, name = tempfile.mkstemp(prefix="quarterdeck-engine-", suffix=".log")
        os.close(descriptor)
        self._log = Path(name)
        self._key = secrets.token_hex(16)

    @property
    def pid(self) -> int:
        """Of the engine that was started last. 0: none was."""
        return 0 if self._process is None else self._process.pid

    def start(self) -> None:
        """Start the engine and wait until it answers. Raises EngineFailedError."""
        self._starts += 1
        if self._starts > MAX_STARTS:
            raise EngineFailedError(f"the engine ended {MAX_STARTS} times in a row: {self._last_words()}")
        (port,) = free_ports(LOOPBACK, 1)
        words = [self._python, *(word.replace("{port}", str(port)) for word in self._command.words)]
        process = self._process = _started(
            words, {**os.environ, **self._command.environ, "VLLM_API_KEY": self._key}, self._log
        )
        self._origin = Origin(LOOPBACK, port, False)
        deadline = time.monotonic() + START_SECONDS
        while not _answers(port):
            if process.poll() is not None:
                raise EngineFailedError(f"the engine did not start: {self._last_words()}")
            if time.monotonic() > deadline:
                self.stop()
                raise EngineFailedError(f"the engine did not answer within {START_SECONDS:.0f} s")
            time.sleep(_POLL_SECONDS)

    async def post(self, body: bytes) -> EngineAnswer:
        """Raises EngineLostError, and EngineFailedError where no other engine starts."""
        if self._process is None or self._process.poll() is not None:
            async with self._starting:
                if self._process is None or self._process.poll() is not None:
                    await asyncio.to_thread(self.start)
        if self._client is None:
            self._client = HttpClient()
        origin, client = self._origin, self._client
        headers = (
            (b"authorization", b"Bearer " + self._key.encode()),
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
        )
        head = request_head("POST", origin, self._path, headers) + b"\r\n"
        try:
            connection = await client.request(
                origin, head, body, Timeouts(_CONNECT_SECONDS, ANSWER_SECONDS, ANSWER_SECONDS)
            )
            try:
                content = await connection.read_all(MAX_ANSWER_BYTES)
                self._starts = 0
                return EngineAnswer(connection.status, content)
            finally:
                client.release(origin, connection)
        except UpstreamError as error:
            await asyncio.sleep(_POLL_SECONDS)  # a process that was killed has a status a moment later
            raise EngineLostError(str(error), was_sent=error.sent) from error

    def stop(self) -> None:
        if self._process is not None:
            processes.end_tree(self._process.pid, grace_s=5.0)
        self._log.unlink(missing_ok=True)

    def _last_words(self) -> str:
        try:
            lines = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        except OSError:
            lines = []
        return " | ".join(line.strip() for line in lines[-_LOG_LINES:]) or "it said nothing"


def _started(words: Sequence[str], environ: Mapping[str, str], output: Path) -> "subprocess.Popen[bytes]":
    """A process that ends with this one, however this one ends."""
    started: list[subprocess.Popen[bytes] | OSError] = []
    is_started = threading.Event()

    def run() -> None:
        # The kernel ends the child with the *thread* that started it: this one lives as long as the child does.
        try:
            with output.open("ab") as file:
                process = subprocess.Popen(  # noqa: S603  # our own interpreter and arguments
                    words,
                    env=dict(environ),
                    stdin=subprocess.DEVNULL,
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    preexec_fn=processes.die_with_parent,
                )
        except OSError as error:
            started.append(error)
            is_started.set()
            return
        started.append(process)
        is_started.set()
        process.wait()

    threading.Thread(target=run, name="engine", daemon=True).start()
    is_started.wait()
    (found,) = started
    if isinstance(found, OSError):
        raise EngineFailedError(f"the engine can't be started: {found}")
    return found


def _answers(port: int) -> bool:
    """Whether the server says that it is healthy."""
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=5.0)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()
