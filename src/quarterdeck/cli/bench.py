"""`quarterdeck bench`: benchmarks an OpenAI-compatible endpoint, optionally against a baseline.

`python -m quarterdeck.load` measures, as a child process in its own environment; this command plans the runs and shows
their progress. Results and a report are written to one folder.
"""

import contextlib
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from quarterdeck import processes
from quarterdeck.cli import bench_rounds, credentials, load_environment
from quarterdeck.cli.bench_rounds import BenchServer, Round
from quarterdeck.cli.load_environment import LoadEnvironmentError
from quarterdeck.cli.terminal import Terminal
from quarterdeck.settings import durations
from quarterdeck.settings.environment import Environment

KEY_VARIABLE = "QUARTERDECK_LOAD_KEY"
"""Environment variable that passes the key to the load test."""
DEFAULT_KEY_VARIABLE = "OPENAI_API_KEY"
NO_KEY = "none"
ENDED_EARLY = 130
ERROR_PREFIX = "error: "
"""Prefix of the line in which the load test reports why it can't measure."""
DEFAULT_RATE = "5"
DEFAULT_SLO = "ttft_ms=500,itl_ms=50"
WITHOUT_PROFILE: Mapping[str, str] = {
    "duration": "60s",
    "warmup": "5s",
    "arrivals": "poisson",
    "slo": DEFAULT_SLO,
    "input_tokens": "200",
    "max_tokens": "64",
}
"""Load without a profile: streams of a paragraph, with objectives for interactive use."""


@dataclass(frozen=True, slots=True)
class Options:
    """The command line. None: not given."""

    model: str | None
    key_env: str | None
    baseline: str | None
    baseline_model: str | None
    baseline_key_env: str | None
    rate: str | None
    streams: int | None
    duration: str | None
    warmup: str | None
    arrivals: str | None
    seed: int
    input_tokens: int | None
    max_tokens: int | None
    slo: str | None
    profile: str | None
    count: int | None
    out: Path | None


def _rates(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    if value is not None and not re.fullmatch(r"\d+(\.\d+)?(,\d+(\.\d+)?)*", value):
        raise click.BadParameter(f"{value!r}: expected a rate such as 10, or several such as 1,5,10")
    return value


def _duration(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    if value is not None:
        try:
            durations.parse(value)
        except ValueError as error:
            raise click.BadParameter(str(error)) from None
    return value


@click.command("bench", short_help="Benchmark an OpenAI-compatible endpoint.")
@click.argument("url")
@click.option("--model", help="Model. Default: the first that answers a chat.")
@click.option(
    "--key-env",
    metavar="VAR",
    help="Variable that holds the API key. Default: this user's key for the local platform, else OPENAI_API_KEY.",
)
@click.option("--baseline", metavar="URL", help="Endpoint to compare with, such as the engine behind the first one.")
@click.option("--baseline-model", metavar="MODEL", help="Model at the baseline. Default: the same.")
@click.option("--baseline-key-env", metavar="VAR", help="Variable with the baseline's key. Default: no key.")
@click.option(
    "--rate", metavar="N[,N…]", callback=_rates, help=f"Arrivals per second; several make steps. [{DEFAULT_RATE}]"
)
@click.option("--streams", type=click.IntRange(1), help="Concurrent streams, back to back, instead of arrivals.")
@click.option("--duration", metavar="TIME", callback=_duration, help="Duration of a round or rate, with warm-up. [60s]")
@click.option("--warmup", metavar="TIME", callback=_duration, help="Part of the duration that is not measured. [5s]")
@click.option("--arrivals", type=click.Choice(["constant", "poisson"]), help="Distribution of arrivals. [poisson]")
@click.option("--seed", type=int, default=1, show_default=True, help="Seed of prompts and arrival times.")
@click.option("--input-tokens", type=click.IntRange(1), help="Approximate prompt length. [200]")
@click.option("--max-tokens", type=click.IntRange(1), help="Maximum tokens per answer. [64]")
@click.option("--slo", metavar="NAME=MS,…", help=f"Latency objectives. [{DEFAULT_SLO}]")
@click.option("--profile", metavar="FILE", help="Load test profile, instead of these defaults.")
@click.option("--rounds", "count", type=click.IntRange(1), help="Runs per server. [2 with a baseline, else 1]")
@click.option("--out", type=click.Path(path_type=Path), metavar="FOLDER", help="Result folder. Default: bench-<time>.")
def command(url: str, **values: Any) -> None:
    """Measure the OpenAI-compatible endpoint URL with streamed chats: time to first token, gaps, throughput, goodput.

    Arrivals form an open loop: a slow server does not get fewer requests. With --baseline the same schedule (seed,
    prompts and times) runs against both servers, in rounds with alternating order, and ratios are printed. Raw data and
    an HTML report are written to a folder.

    Runs in the environment `load` beside this one (created on demand), or with the Python interpreter set in
    QUARTERDECK_LOAD_PYTHON.
    """
    options = Options(**values)
    load = load_arguments(options)
    terminal = Terminal()
    try:
        environment = Environment.read()
        main, baseline = servers(url, options, environment.variables, is_local=_is_local(url, environment.state))
        installation = load_environment.current()
        python = load_environment.ensure(environment, installation, lambda text: terminal.step("bench", text))
    except (LoadEnvironmentError, ValueError) as error:
        raise click.ClickException(str(error)) from None
    out = options.out or Path(f"bench-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}")
    if (out / "rounds").exists():
        raise click.ClickException(f"{out} already holds results: choose another folder")
    planned = bench_rounds.order(main, baseline, options.count or (2 if baseline else 1), options.seed)
    sys.exit(_bench(planned, python, out.absolute(), load, environment.variables, terminal))


def servers(
    url: str, options: Options, variables: Mapping[str, str], *, is_local: bool = False
) -> tuple[BenchServer, BenchServer | None]:
    """The servers to measure, with their keys from the environment. Raises ValueError if one is missing.

    `is_local`: `url` is the platform on this machine, whose key the load test finds.
    """
    key = _key(options.key_env, variables)
    if key is None and not is_local:
        key = variables.get(DEFAULT_KEY_VARIABLE) or None
    main = BenchServer("main", url, options.model, key)
    if options.baseline is None:
        return main, None
    # Never send the target's key to the baseline: it may be another provider.
    key = _key(options.baseline_key_env, variables) or NO_KEY
    return main, BenchServer("baseline", options.baseline, options.baseline_model or options.model, key)


def _is_local(url: str, state: Path) -> bool:
    try:
        base_url = credentials.read(state).base_url
    except credentials.CredentialsError:
        return False
    return url.rstrip("/").removesuffix("/v1") == base_url.removesuffix("/v1")


def _key(name: str | None, variables: Mapping[str, str]) -> str | None:
    if name is None:
        return None
    if not (key := variables.get(name)):
        raise ValueError(f"environment variable {name} is not set")
    return key


def load_arguments(options: Options) -> list[str]:
    """Arguments of the load test. Options override the profile.

    Raises UsageError for contradictory options.
    """
    if options.rate and options.streams:
        raise click.UsageError("--rate can't be combined with --streams")
    if options.streams and options.arrivals:
        raise click.UsageError(
            "--arrivals can't be combined with --streams: each stream starts when the previous one ends"
        )
    given = {name: str(value) for name in WITHOUT_PROFILE if (value := getattr(options, name)) is not None}
    if options.profile:
        given["profile"] = options.profile
    else:
        given = {**WITHOUT_PROFILE, **given}
    if options.streams:
        given.pop("arrivals", None)
        given["users"] = str(options.streams)
    elif options.rate or not options.profile:
        given["rate"] = options.rate or DEFAULT_RATE
    return [text for name, value in given.items() for text in (f"--{name.replace('_', '-')}", value)]


def _bench(
    planned: list[Round], python: Path, out: Path, load: list[str], variables: Mapping[str, str], terminal: Terminal
) -> int:
    """Run the rounds and the report. Returns the exit status, 130 after Ctrl-C. Raises ClickException."""
    out.mkdir(parents=True, exist_ok=True)
    order = ", ".join(f"{one.number} {_title(one)}" for one in planned)
    terminal.step("bench", f"{len(planned)} run{'s' if len(planned) > 1 else ''}: {order}")
    status = 0
    for one in planned:
        # Without a key the load test finds one as documented at --key-env. A baseline always has one, at least NO_KEY.
        environ = {name: value for name, value in variables.items() if name != KEY_VARIABLE}
        if one.server.key is not None:
            environ[KEY_VARIABLE] = one.server.key
        log = out / f"{one.number}-{one.server.name}.log"
        status = follow(
            bench_rounds.command_line(python, one, out, load), environ, log, progress(terminal, _title(one))
        )
        if status == ENDED_EARLY:
            terminal.step("bench", "stopped early")
            break
        if status:
            raise click.ClickException(f"{_title(one)} could not be measured: {_reason(log)}")
    done = subprocess.run(  # noqa: S603  # our own interpreter and arguments
        [str(python), "-m", "quarterdeck.load", "report", str(out)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise click.ClickException(done.stderr.strip() or "could not write the report")
    terminal.block(done.stdout.rstrip())
    return status


def _title(one: Round) -> str:
    return "target" if one.server.name == "main" else one.server.name


def progress(terminal: Terminal, title: str) -> Callable[[str], None]:
    """Print a run's lines up to its table; one table of all rounds is printed at the end."""
    is_over = False

    def show(line: str) -> None:
        nonlocal is_over
        is_over = is_over or line.startswith("scenario ")
        if line.strip() and not is_over and not line.startswith(ERROR_PREFIX):
            terminal.step(title, line)

    return show


def follow(command_line: list[str], environ: Mapping[str, str], log: Path, show: Callable[[str], None]) -> int:
    """Run a child process; show its lines and write them to `log`. Ctrl-C is passed on; the child then stops early."""
    with (
        log.open("w", encoding="utf-8") as kept,
        subprocess.Popen(  # noqa: S603  # our own interpreter and arguments
            command_line,
            env=dict(environ),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,  # Ctrl-C reaches only this process: the child quits on a second one
            preexec_fn=processes.die_with_parent,
        ) as child,
        _forwarding_interrupt(child),
    ):
        for line in child.stdout or ():
            kept.write(line)
            show(line.rstrip())
        return child.wait()


@contextlib.contextmanager
def _forwarding_interrupt(child: "subprocess.Popen[str]") -> Iterator[None]:
    before = signal.signal(signal.SIGINT, lambda *_: child.send_signal(signal.SIGINT))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _reason(log: Path) -> str:
    """The child's error line. Without results the log and an empty folder are removed."""
    lines = [line for line in log.read_text(encoding="utf-8").splitlines() if line.strip()]
    message = next((line for line in reversed(lines) if line.startswith(ERROR_PREFIX)), None)
    if message is None:
        return f"{lines[-1] if lines else 'no output'}  (see {log})"
    log.unlink()
    with contextlib.suppress(OSError):  # it holds results of an earlier round
        log.parent.rmdir()
    return message.removeprefix(ERROR_PREFIX)
