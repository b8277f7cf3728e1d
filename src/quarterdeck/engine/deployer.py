"""The door's side of the deployment process (`deploy.py`): starts it early, sends the request, reports progress."""

import asyncio
import json
import logging
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from quarterdeck.engine.machine import Machine
from quarterdeck.settings.models import ModelConfig

log = logging.getLogger(__name__)

_DETAILS = {"preparing": "preparing: {}", "deploying": "{}", "failed": "failed: {}", "ready": ""}


class Deployer:
    """Runs `python -m quarterdeck.engine.deploy` once. Calls `report(model, detail)` at each step."""

    def __init__(self, report: Callable[[str, str], None]) -> None:
        self._report = report
        self._process: asyncio.subprocess.Process | None = None
        self._progress = asyncio.StreamReader()

    async def start(self) -> None:
        """Start the process: its imports take as long as Ray's start, and both run in parallel."""
        reading, writing = os.pipe()
        # A separate pipe, because vLLM prints to stdout when it is imported.
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "quarterdeck.engine.deploy", str(writing)),
            stdin=asyncio.subprocess.PIPE,
            pass_fds=[writing],
        )
        os.close(writing)
        await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(self._progress), os.fdopen(reading, "rb", 0)
        )

    async def deploy(self, request: Mapping[str, Any]) -> None:
        """Send the request and follow its progress to the end. A model without a final step is reported as failed."""
        process = self._process
        assert process is not None and process.stdin is not None  # noqa: S101  # started
        open_models = [model["name"] for model in request["models"]]
        try:
            process.stdin.write(json.dumps(request).encode() + b"\n")
            await process.stdin.drain()
        except (BrokenPipeError, ConnectionResetError):
            log.error("deployer exited before it received its request")
        async for line in self._progress:
            step = json.loads(line)
            self._report(step["model"], _DETAILS[step["step"]].format(step["detail"]))
            log.log(
                logging.ERROR if step["step"] == "failed" else logging.INFO,
                "%s: %s %s",
                *(step["model"], step["step"], step["detail"]),
            )
            if step["step"] in ("ready", "failed"):
                open_models.remove(step["model"])
        status = await process.wait()
        if status != 0:
            for name in open_models:
                self._report(name, f"failed: the deployer exited with status {status}; see the engine's log")


def deployment_request(
    models: Sequence[ModelConfig],
    *,
    address: str,
    machine: Machine,
    base: Path,
    cache: Path,
    thread_binding: str | None,
) -> dict[str, Any]:
    """Return the deployer's input. Models that generate come first: users wait for chat."""
    with_engine = [model for model in models if model.engine is not None]
    with_engine.sort(key=lambda model: model.engine is not None and model.engine.task != "generate")
    return {
        "address": address,
        "machine": {
            "cpu_flags": sorted(machine.cpu_flags),
            "cores": machine.cores,
            "gpus": machine.gpus,
            "has_gpu_engine": machine.has_gpu_engine,
        },
        "base": str(base),
        "cache": str(cache),
        "thread_binding": thread_binding,
        "models": [
            {"name": model.name, "engine": model.engine.model_dump(mode="json")}
            for model in with_engine
            if model.engine is not None
        ],
    }
