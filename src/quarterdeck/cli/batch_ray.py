"""`quarterdeck batch run --ray`: the requests are executed by engines of their own, on Ray, without the platform.

The run is a process in the engine's environment (`python -m quarterdeck.engine.offline`), which writes its progress and
its result to a pipe.
"""

import contextlib
import json
import signal
import subprocess
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import click

from quarterdeck import processes
from quarterdeck.cli.batches import progress_text
from quarterdeck.cli.environments import Layout
from quarterdeck.cli.model_progress import Line
from quarterdeck.cli.process_plan import simulator_words
from quarterdeck.cli.up import interpreters
from quarterdeck.settings.environment import Environment

ENDPOINTS = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings")
"""Those of engines; responses are the gateway's."""
INTERRUPTED = 130


@dataclass(frozen=True, slots=True)
class RayOptions:
    engine: str
    address: str | None
    replicas: int | None
    simulated: Sequence[str]
    """Options of the simulated engine, `name=value`."""


def run_on_ray(
    path: Path, output: Path, errors: Path, endpoint: str, options: RayOptions, line: Line, environment: Environment
) -> dict[str, Any]:
    """Returns the run as a batch is shown. Raises ClickException, and SystemExit where it was interrupted."""
    if endpoint not in ENDPOINTS:
        raise click.ClickException(f"{endpoint} is executed by the gateway: leave out --ray")
    python = interpreters(environment).engine
    if not python.exists():
        how = Layout.find(environment.cache).how_to_make("engine")
        raise click.ClickException(f"the engine's environment is missing: {how}")
    words = [str(python), "-m", "quarterdeck.engine.offline", str(path), "--endpoint", endpoint]
    words += ["--output", str(output), "--errors", str(errors), "--engine", options.engine]
    words += [f"--sim={word}" for word in simulator_words(options.simulated)]
    words += ["--ray-address", options.address] if options.address else []
    words += ["--replicas", str(options.replicas)] if options.replicas else []
    log = environment.state / "logs" / "offline.log"
    log.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (
        log.open("wb") as noise,
        subprocess.Popen(  # noqa: S603  # our own interpreter and arguments
            words,
            env=dict(environment.variables),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=noise,
            start_new_session=True,  # Ctrl-C reaches this process, which passes it on
            preexec_fn=processes.die_with_parent,
        ) as child,
        _forwarding(child) as stopping,
    ):
        result = _follow(child, line)
        status = child.wait()
    # Whatever Ray has made of the signal: its own handler may have been there.
    if status == INTERRUPTED or (stopping.is_set() and "result" not in (result or {})):
        _interrupted(output, line)
    if result is None:
        raise click.ClickException(f"the run ended with status {status} (see {log})")
    if "error" in result:
        raise click.ClickException(f"{result['error']} (see {log})")
    found: dict[str, Any] = result["result"]
    return found


def _follow(child: "subprocess.Popen[bytes]", line: Line) -> dict[str, Any] | None:
    """Show the progress. Returns the last event, unless it is progress."""
    last: dict[str, Any] | None = None
    for text in child.stdout or ():
        try:
            event = json.loads(text)
        except ValueError:  # a library that prints
            continue
        if not isinstance(event, dict):
            continue
        if "progress" not in event:
            last = event
            continue
        counts = {"completed": 0, "failed": 0} | event["progress"]["request_counts"]
        done, total = counts["completed"] + counts["failed"], counts["total"]
        shown = f"{event['progress']['status']}: {progress_text({'request_counts': counts})}"
        line.update(shown, done / total if total else None)
    line.end()
    return last


def _interrupted(output: Path, line: Line) -> NoReturn:
    line.end()
    click.echo(f"interrupted; the same command goes on after what is in {output}.part", err=True)
    raise SystemExit(INTERRUPTED)


@contextlib.contextmanager
def _forwarding(child: "subprocess.Popen[bytes]") -> Iterator[threading.Event]:
    """Pass Ctrl-C and SIGTERM on: the child stores what is done. Yields what is set then."""
    before = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)}
    stopping = threading.Event()

    def stop(*_: object) -> None:
        stopping.set()
        child.send_signal(signal.SIGTERM)

    for each in before:
        signal.signal(each, stop)
    try:
        yield stopping
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
