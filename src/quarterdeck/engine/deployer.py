"""The door's side of the deployment process (`deploy.py`): starts it when it is needed, and ends it when it is idle."""

import asyncio
import contextlib
import json
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from quarterdeck.engine.machine import Machine
from quarterdeck.model_lifecycle.runtime import StartFailure

log = logging.getLogger(__name__)

IDLE_SECONDS = 30.0
"""After the last deployment until the process ends: it holds 700 MB, and its start takes ten seconds."""
COMMAND = (sys.executable, "-P", "-m", "quarterdeck.engine.deploy")


class Deployer:
    """Deploys one model at a time. The process is started again when it has ended."""

    def __init__(self, command: Sequence[str] = COMMAND, *, idle_seconds: float = IDLE_SECONDS) -> None:
        self._command, self._idle_seconds = tuple(command), idle_seconds
        self._process: asyncio.subprocess.Process | None = None
        self._answers: asyncio.StreamReader | None = None
        self._pipe: asyncio.ReadTransport | None = None
        self._turn = asyncio.Lock()
        self._idle: asyncio.TimerHandle | None = None

    async def start(self) -> None:
        """Start the process before it is needed: its imports take as long as Ray's start, and both run in parallel."""
        async with self._turn:
            await self._started()

    async def deploy(self, request: Mapping[str, Any]) -> None:
        """Have a model deployed. Raises StartFailure. A cancelled call ends the process, which may hang in it."""
        async with self._turn:
            if self._idle is not None:
                self._idle.cancel()
            process = await self._started()
            answer = b""
            try:
                assert process.stdin is not None and self._answers is not None  # noqa: S101  # started
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    process.stdin.write(json.dumps(request).encode() + b"\n")
                    await process.stdin.drain()
                    answer = await self._answers.readline()
            except asyncio.CancelledError:
                await self._end(process)
                raise
            if not answer:
                status = await process.wait()
                self._process = None
                raise StartFailure(
                    "engine_failed", f"the deployment process exited with status {status}; see the engine's log"
                )
            self._idle = asyncio.get_running_loop().call_later(self._idle_seconds, self._close)
        if error := json.loads(answer)["error"]:
            raise StartFailure("engine_failed", error)

    async def close(self) -> None:
        """End the process, whatever it does."""
        if self._idle is not None:
            self._idle.cancel()
        if self._process is not None:
            await self._end(self._process)

    def _close(self) -> None:
        """End it by the end of its input."""
        process, self._process = self._process, None
        if process is not None and process.stdin is not None:
            process.stdin.close()

    async def _end(self, process: asyncio.subprocess.Process) -> None:
        self._process = None
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        if self._pipe is not None:
            self._pipe.close()

    async def _started(self) -> asyncio.subprocess.Process:
        if self._process is not None and self._process.returncode is None:
            return self._process
        reading, writing = os.pipe()
        # A separate pipe, because vLLM prints to stdout when it is imported.
        self._process = await asyncio.create_subprocess_exec(
            *(*self._command, str(writing)), stdin=asyncio.subprocess.PIPE, pass_fds=[writing]
        )
        os.close(writing)
        answers = self._answers = asyncio.StreamReader()
        self._pipe, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(answers), os.fdopen(reading, "rb", 0)
        )
        return self._process


def machine_fields(machine: Machine) -> dict[str, Any]:
    """The machine as a part of a request."""
    return {
        "cpu_flags": sorted(machine.cpu_flags),
        "cores": machine.cores,
        "gpus": machine.gpus,
        "has_gpu_engine": machine.has_gpu_engine,
    }
