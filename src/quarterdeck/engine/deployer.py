"""The door's end of the deploying process: start it early, give it its orders, hear how far it is."""

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
    """`python -m quarterdeck.engine.deploy`, once. `tell(model, detail)` hears each step in words."""

    def __init__(self, tell: Callable[[str, str], None]) -> None:
        self._tell = tell
        self._process: asyncio.subprocess.Process | None = None
        self._words = asyncio.StreamReader()

    async def start(self) -> None:
        """Begin with the imports, which take as long as Ray's start: the two go side by side."""
        reading, writing = os.pipe()
        # A pipe of its own: vLLM prints to stdout while it is imported.
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "quarterdeck.engine.deploy", str(writing)),
            stdin=asyncio.subprocess.PIPE,
            pass_fds=[writing],
        )
        os.close(writing)
        await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(self._words), os.fdopen(reading, "rb", 0)
        )

    async def deploy(self, orders: Mapping[str, Any]) -> None:
        """Give the orders and follow them to the end. What the process leaves unsaid is told as failed."""
        process = self._process
        assert process is not None and process.stdin is not None  # noqa: S101  # started
        open_models = [model["name"] for model in orders["models"]]
        try:
            process.stdin.write(json.dumps(orders).encode() + b"\n")
            await process.stdin.drain()
        except (BrokenPipeError, ConnectionResetError):
            log.error("the deployer ended before it had its orders")
        async for line in self._words:
            step = json.loads(line)
            self._tell(step["model"], _DETAILS[step["step"]].format(step["detail"]))
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
                self._tell(name, f"failed: the deployer ended with status {status}; its log says why")


def orders(
    models: Sequence[ModelConfig],
    *,
    address: str,
    machine: Machine,
    base: Path,
    cache: Path,
    thread_binding: str | None,
) -> dict[str, Any]:
    """What the deployer must know. Models that generate come first: a chat is what people wait for."""
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
