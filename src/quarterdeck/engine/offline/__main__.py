"""`python -m quarterdeck.engine.offline FILE`: an offline run, started by `quarterdeck batch run --ray`.

It writes events to stdout, a JSON object a line: {"progress"}, then {"result"} or {"error"}. Ray's and vLLM's own lines
go to stderr.
"""

import argparse
import json
import logging
import os
import signal
import sys
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from quarterdeck import processes
from quarterdeck.engine import shared_memory
from quarterdeck.engine.machine import Machine, read_machine
from quarterdeck.engine.offline.engines import EngineChoiceError, choose, find_model
from quarterdeck.engine.offline.offline_run import IncompleteRunError, check, run
from quarterdeck.engine.offline.result_files import ResultFilesError
from quarterdeck.engine.private_folders import FolderInUseError, UnsafeFolderError, ray_folder
from quarterdeck.engine.process_guard import run_guarded
from quarterdeck.engine.ray_variables import set_variables
from quarterdeck.settings.engine import EngineDoorSettings
from quarterdeck.settings.environment import Environment
from quarterdeck.settings.loading import ConfigError
from quarterdeck.settings.packaged import config_path
from quarterdeck.settings.source import file_source
from quarterdeck.telemetry.logging import configure

log = logging.getLogger("quarterdeck.engine.offline")

FAILED, INTERRUPTED = 1, 130
_END_SECONDS = 15.0
LOOPBACK = "127.0.0.1"


class OfflineError(Exception):
    """The run can't go on; the message says why."""


REASONS = (OfflineError, EngineChoiceError, IncompleteRunError, ResultFilesError, UnsafeFolderError)
"""Errors whose message is for the user."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m quarterdeck.engine.offline")
    parser.add_argument("file", type=Path)
    parser.add_argument("--endpoint", required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--errors", type=Path, required=True)
    parser.add_argument("--engine", choices=("vllm", "sim"), default="vllm")
    parser.add_argument("--sim", action="append", default=[], help="a word of the simulator's command line")
    parser.add_argument("--ray-address", help="a Ray cluster to join; default: a Ray of its own")
    parser.add_argument("--replicas", type=int, help="engines; default: as many as there are GPUs for")
    options = parser.parse_args()
    try:
        environment = Environment.read()
        settings = EngineDoorSettings.read(environment)
    except (ConfigError, ValueError) as error:
        _emit({"error": str(error)})
        return FAILED
    configure(environment.log_level, "offline")
    address = options.ray_address or settings.ray_address
    set_variables(os.environ, Path(__file__).resolve().parents[3], is_ours=address is None, is_loopback=address is None)
    return run_guarded(
        partial(_run_and_end, options, environment, settings, address),
        end_seconds=_END_SECONDS + settings.stop_seconds,
        stop_seconds=settings.stop_seconds,
    )


def _run_and_end(
    options: argparse.Namespace, environment: Environment, settings: EngineDoorSettings, address: str | None
) -> int:
    """Run in this process, then end every descendant. Returns the exit status."""
    signal.signal(signal.SIGTERM, _interrupt)
    status = 0
    try:
        # Apart from the engine door's, which may run.
        state = environment.state / "offline"
        with ray_folder(state, os.environ) if address is None else nullcontext() as folder:
            _emit({"result": _run(options, environment, settings, address, folder)})
    except KeyboardInterrupt:
        status = INTERRUPTED
    except FolderInUseError:
        _emit({"error": f"another offline run uses the state folder ({environment.state})"})
        status = FAILED
    except (*REASONS, ConfigError, OSError) as error:
        _emit({"error": str(error)})
        status = FAILED
    except Exception as error:  # the outermost edge: Ray and vLLM raise of many kinds
        log.exception("offline run failed")
        _emit({"error": _last_line(error)})
        status = FAILED
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    segments = shared_memory.segments(processes.descendants(os.getpid()))
    processes.end_tree(os.getpid(), grace_s=settings.stop_seconds)
    shared_memory.remove(segments)
    return status


def _run(
    options: argparse.Namespace,
    environment: Environment,
    settings: EngineDoorSettings,
    address: str | None,
    folder: Path | None,
) -> dict[str, Any]:
    checked = check(options.file, options.endpoint)
    if checked.errors:
        errors = [{"line": each.line, "code": each.code, "message": each.message} for each in checked.errors]
        return {
            "id": None,
            "object": "batch",
            "status": "failed",
            "request_counts": {"total": checked.total, "completed": 0, "failed": 0},
            "errors": {"object": "list", "data": errors},
            "written": {},
        }
    model, engine = find_model(file_source(environment).read().models, checked.model, options.endpoint)
    _emit({"progress": {"status": "starting Ray", "request_counts": {"total": checked.total}}})
    machine = _start_ray(address, folder, read_machine())
    signal.signal(signal.SIGTERM, _interrupt)  # Ray's start has replaced it
    pool = choose(
        options.engine,
        model,
        engine,
        checked.model,
        machine,
        base=config_path(environment).parent,
        cache=environment.cache,
        thread_binding=settings.thread_binding,
        replicas=options.replicas,
        simulator_words=options.sim,
        report=lambda text: _emit({"progress": {"status": text, "request_counts": {"total": checked.total}}}),
    )
    from quarterdeck.engine.offline.dataset import Pool, execute, room

    if pool.replicas > (most := room(pool.gpus)):
        raise OfflineError(f"{pool.replicas} engines don't fit: Ray has room for {most}")

    def execute_all(lines: Any, run_id: str) -> Any:
        wanted = Pool(pool.command, options.endpoint, run_id, pool.replicas, pool.requests, pool.gpus)
        return execute(lines, wanted)

    return run(
        options.file,
        options.endpoint,
        checked,
        options.output,
        options.errors,
        execute_all,
        lambda progress: _emit({"progress": progress}),
        engine=options.engine,
    )


def _start_ray(address: str | None, folder: Path | None, machine: Machine) -> Machine:
    """Start or join Ray. Returns the machine, with the GPUs of all of Ray's nodes."""
    import ray  # it reads its variables at import

    from quarterdeck.engine.cluster import start_local

    if address is None:
        if folder is None:
            raise RuntimeError("a local Ray needs a folder")
        start_local(machine, folder, LOOPBACK)
        return machine
    try:
        ray.init(address=address, log_to_driver=False, configure_logging=False)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise OfflineError(f"can't join the Ray cluster at {address}: {error}") from error
    return replace(machine, gpus=int(ray.cluster_resources().get("GPU", 0)))


def _emit(event: dict[str, Any]) -> None:
    print(json.dumps(event), flush=True)


def _interrupt(*arguments: object) -> None:
    raise KeyboardInterrupt


def _last_line(error: BaseException) -> str:
    """Ray's errors are tracebacks of other processes: their last line is the error."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    wanted = [line for line in lines if "EngineFailedError" in line]
    found = (wanted or lines or [type(error).__name__])[-1]
    return found.rpartition("EngineFailedError: ")[2][:1000]


if __name__ == "__main__":
    sys.exit(main())
