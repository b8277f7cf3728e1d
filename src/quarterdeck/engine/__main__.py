"""`python -m quarterdeck.engine`: reads environment and configuration, builds the door, serves until SIGTERM."""

import argparse
import asyncio
import logging
import os
import sys
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import uvicorn

from quarterdeck import processes
from quarterdeck.engine import shared_memory
from quarterdeck.engine.machine import read_machine
from quarterdeck.engine.nvml import Nvml
from quarterdeck.engine.private_folders import FolderInUseError, UnsafeFolderError, ray_folder
from quarterdeck.engine.process_guard import run_guarded
from quarterdeck.engine.ray_variables import set_variables
from quarterdeck.model_lifecycle.following import follow
from quarterdeck.model_lifecycle.start_times import StartTimes
from quarterdeck.net.browser_guard import BrowserGuard
from quarterdeck.net.signals import on_signals
from quarterdeck.net.uvicorn_server import EmbeddedServer
from quarterdeck.settings.engine import EngineDoorSettings
from quarterdeck.settings.environment import Environment
from quarterdeck.settings.loading import ConfigError
from quarterdeck.settings.packaged import config_path
from quarterdeck.settings.source import ConfigSource, file_source
from quarterdeck.telemetry.logging import configure
from quarterdeck.weights.downloads import Downloads
from quarterdeck.weights.pulls import Pulls

if TYPE_CHECKING:
    from quarterdeck.engine.door import Door

log = logging.getLogger("quarterdeck.engine")

USAGE_STATUS = 2
"""`up` does not start a process again that ends with it."""
_END_S = 15.0
"""Added to drain and stop time, to kill the processes that remain on a busy machine."""


def main() -> int:
    description = (
        f"{(__doc__ or '').partition(chr(10))[0]} Settings: QUARTERDECK_* variables (docs/reference/settings.md)."
    )
    argparse.ArgumentParser(prog="python -m quarterdeck.engine", description=description).parse_args()
    try:
        environment = Environment.read()
        settings = EngineDoorSettings.read(environment)
        source = file_source(environment)
        source.read()
    except (ConfigError, ValueError) as error:
        print(error, file=sys.stderr)
        return USAGE_STATUS
    configure(environment.log_level, "engine")
    for text in environment.ignored:
        log.warning("%s", text)
    set_variables(
        os.environ,
        Path(__file__).resolve().parents[2],
        is_ours=settings.ray_address is None,
        is_loopback=settings.is_loopback,
    )
    return run_guarded(
        partial(run, environment, settings),
        end_seconds=settings.drain_seconds + settings.stop_seconds + _END_S,
        stop_seconds=settings.stop_seconds,
    )


def run(environment: Environment, settings: EngineDoorSettings) -> int:
    """Run the door in this process, then end every descendant. Returns the exit status."""
    status = 0
    try:
        with ray_folder(environment.state, os.environ) if settings.ray_address is None else nullcontext() as folder:
            asyncio.run(serve(environment, settings, file_source(environment), folder))
    except (UnsafeFolderError, FolderInUseError) as error:
        log.error("%s", error)
        return USAGE_STATUS if isinstance(error, UnsafeFolderError) else 1
    # The door's outermost edge: any error is logged with its traceback, ends the tree and sets the status.
    except Exception:
        log.exception("engine door failed")
        status = 1
    segments = shared_memory.segments(processes.descendants(os.getpid()))
    if processes.end_tree(os.getpid(), grace_s=settings.stop_seconds):
        status = 1
    shared_memory.remove(segments)
    log.info("stopped")
    return status


async def serve(
    environment: Environment, settings: EngineDoorSettings, source: ConfigSource, folder: Path | None
) -> None:
    """`folder`: for the sessions of a local Ray."""
    # Ray reads its environment variables at import, so it is imported after they are set.
    from quarterdeck.engine.app import App
    from quarterdeck.engine.cluster import Cluster
    from quarterdeck.engine.door import Door
    from quarterdeck.engine.replica_client import ReplicaClient
    from quarterdeck.engine.replica_logs import ReplicaLogs
    from quarterdeck.engine.sources import Sources

    base = config_path(environment).parent
    config = source.read()
    for text in config.problems:
        log.warning("%s", text)
    downloads = Downloads(os.environ, environment.cache)
    async with httpx.AsyncClient(trust_env=False) as client:
        door = Door(
            config.models,
            settings,
            read_machine(),
            Cluster(settings, folder),
            ReplicaClient(client),
            Sources(downloads, base, environment.cache, settings.thread_binding),
            ReplicaLogs(folder, environment.state / "logs" / "models"),
            base=base,
            times=StartTimes(environment.state / "engine" / "start-times.json"),
            read_gpus=Nvml(os.environ).read,
            owner="" if settings.ray_address is None else sha256(str(environment.state).encode()).hexdigest()[:6],
        )
        server = EmbeddedServer(
            uvicorn.Config(
                BrowserGuard(App(door, Pulls(downloads)), is_loopback=settings.is_loopback),
                host=settings.host,
                port=environment.engine_port,
                log_config=None,
                access_log=False,
                lifespan="off",
                timeout_graceful_shutdown=1,
            )
        )
        await _until_stopped(server, door, partial(follow, source, door.follow))


async def _until_stopped(server: EmbeddedServer, door: "Door", following: Callable[[], Awaitable[None]]) -> None:
    """Run server and door until a stop signal, or until one of them ends. `following`: of the configuration."""
    stopped = asyncio.Event()
    on_signals(stopped.set)
    serving = asyncio.create_task(server.serve())
    # Ray's start replaces our handlers by its own, which end the process without a drain.
    running = asyncio.create_task(door.run(on_ray_started=partial(on_signals, stopped.set)))
    waiting = asyncio.create_task(stopped.wait())
    changing = asyncio.ensure_future(following())
    await asyncio.wait([serving, running, waiting, changing], return_when=asyncio.FIRST_COMPLETED)
    if stopped.is_set():
        log.info("draining")
        await door.drain()
    for task in (waiting, running, changing):
        task.cancel()
    server.should_exit = True
    await asyncio.wait([serving, running, changing])
    for task in (serving, running, changing):
        if not task.cancelled() and (error := task.exception()) is not None:
            raise error


if __name__ == "__main__":
    sys.exit(main())
