"""`quarterdeck bench`: how fast an OpenAI-compatible endpoint is, beside another one, by a schedule to be repeated.

The load door measures (`python -m quarterdeck.load`, in an environment of its own, as a child); here is only what is
run, in which order, and what a person sees of it. Its results stay in one folder, with the page that explains them.
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
from quarterdeck.cli import load_environment, rounds
from quarterdeck.cli.load_environment import LoadEnvironmentError
from quarterdeck.cli.rounds import Round, Server
from quarterdeck.cli.terminal import Terminal
from quarterdeck.settings import durations
from quarterdeck.settings.environment import Environment

KEY_VARIABLE = "QUARTERDECK_LOAD_KEY"
"""In which the load door finds the key of whom it asks."""
NO_KEY = "none"
ENDED_EARLY = 130
REFUSAL = "error: "
"""With which the load door says, in a line, why there is nothing to measure."""
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
"""What is asked where no profile says it: streams of a paragraph, judged as a person who waits would."""


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
        raise click.BadParameter(f"{value!r}: write 10, or several as 1,5,10")
    return value


def _duration(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    if value is not None:
        try:
            durations.parse(value)
        except ValueError as error:
            raise click.BadParameter(str(error)) from None
    return value


@click.command("bench", short_help="Measure any OpenAI-compatible endpoint, beside another one.")
@click.argument("url")
@click.option("--model", help="Otherwise the first that answers a chat.")
@click.option("--key-env", metavar="VAR", help="The variable that holds the key. Otherwise OPENAI_API_KEY.")
@click.option("--baseline", metavar="URL", help="Another endpoint, for instance the engine behind the first one.")
@click.option("--baseline-model", metavar="MODEL", help="Its name there. Otherwise the same.")
@click.option("--baseline-key-env", metavar="VAR", help="Otherwise the baseline gets no key.")
@click.option("--rate", metavar="N[,N…]", callback=_rates, help=f"Arrivals a second; several: steps. [{DEFAULT_RATE}]")
@click.option("--streams", type=click.IntRange(1), help="Instead of arrivals so many streams at a time, back to back.")
@click.option("--duration", metavar="TIME", callback=_duration, help="Of a round, or of each rate; with warm-up. [60s]")
@click.option("--warmup", metavar="TIME", callback=_duration, help="The part of it that is not measured. [5s]")
@click.option("--arrivals", type=click.Choice(["constant", "poisson"]), help="How they are spread. [poisson]")
@click.option(
    "--seed", type=int, default=1, show_default=True, help="The same seed asks the same, at the same moments."
)
@click.option("--input-tokens", type=click.IntRange(1), help="Of a question, about. [200]")
@click.option("--max-tokens", type=click.IntRange(1), help="Of an answer. [64]")
@click.option("--slo", metavar="NAME=MS,…", help=f"What a good answer is. [{DEFAULT_SLO}]")
@click.option("--profile", metavar="FILE", help="A load test's profile, instead of these defaults.")
@click.option("--rounds", "count", type=click.IntRange(1), help="How often at each. [2 with a baseline, else 1]")
@click.option("--out", type=click.Path(path_type=Path), metavar="FOLDER", help="Otherwise bench-<time>, here.")
def command(url: str, **told: Any) -> None:
    """Measure the OpenAI-compatible endpoint URL with streams of chat: time to first token, gaps, throughput, goodput.

    Arrivals are an open loop: a slow server does not get fewer requests. With --baseline the same schedule (one seed,
    the same questions at the same moments) is run at both, one after the other, in rounds that begin with the one and
    with the other in turn; ratios are printed. Raw rows and a page that explains them are left in a folder.

    Runs in the environment `load` beside this one (made on demand), or with the python that QUARTERDECK_LOAD_PYTHON
    names.
    """
    options = Options(**told)
    asked = schedule(options)
    terminal = Terminal()
    try:
        environment = Environment.read()
        main, baseline = servers(url, options, environment.variables)
        place = load_environment.here()
        python = load_environment.ensure(environment, place, lambda text: terminal.step("bench", text))
    except (LoadEnvironmentError, ValueError) as error:
        raise click.ClickException(str(error)) from None
    out = options.out or Path(f"bench-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}")
    if (out / "rounds").exists():
        raise click.ClickException(f"{out} holds an earlier bench: name another folder")
    todo = rounds.order(main, baseline, options.count or (2 if baseline else 1), options.seed)
    sys.exit(_bench(todo, python, out.absolute(), asked, environment.variables, terminal))


def servers(url: str, options: Options, variables: Mapping[str, str]) -> tuple[Server, Server | None]:
    """Who is measured, with the keys that the environment holds. Raises ValueError where one is missing."""
    main = Server("main", url, options.model, _key(options.key_env, variables))
    if options.baseline is None:
        return main, None
    # It never sees the target's key: it may be somebody else's machine.
    key = _key(options.baseline_key_env, variables) or NO_KEY
    return main, Server("baseline", options.baseline, options.baseline_model or options.model, key)


def _key(name: str | None, variables: Mapping[str, str]) -> str | None:
    if name is None:
        return None
    if not (key := variables.get(name)):
        raise ValueError(f"the variable {name} is not set")
    return key


def schedule(options: Options) -> list[str]:
    """The words that tell the load door what to ask and when. A profile's own values hold unless they are given here.

    Raises UsageError where two options can't both be meant.
    """
    if options.rate and options.streams:
        raise click.UsageError("--rate and --streams can't both hold: arrivals, or streams at a time?")
    if options.streams and options.arrivals:
        raise click.UsageError("--arrivals has no meaning with --streams: each begins when the one before it ended")
    told = {name: str(value) for name in WITHOUT_PROFILE if (value := getattr(options, name)) is not None}
    if options.profile:
        told["profile"] = options.profile
    else:
        told = {**WITHOUT_PROFILE, **told}
    if options.streams:
        told.pop("arrivals", None)
        told["users"] = str(options.streams)
    elif options.rate or not options.profile:
        told["rate"] = options.rate or DEFAULT_RATE
    return [word for name, value in told.items() for word in (f"--{name.replace('_', '-')}", value)]


def _bench(
    todo: list[Round], python: Path, out: Path, asked: list[str], variables: Mapping[str, str], terminal: Terminal
) -> int:
    """Run the rounds, then the report. The exit status: 130 after Ctrl-C. Raises ClickException."""
    out.mkdir(parents=True, exist_ok=True)
    order = ", ".join(f"{one.number} {_title(one)}" for one in todo)
    terminal.step("bench", f"{len(todo)} run{'s' if len(todo) > 1 else ''}, one after the other: {order}")
    status = 0
    for one in todo:
        # Empty where there is none: the load door would otherwise look for one, and send it where it does not belong.
        environ = {**variables, KEY_VARIABLE: one.server.key or ""}
        log = out / f"{one.number}-{one.server.name}.log"
        status = follow(rounds.words(python, one, out, asked), environ, log, progress(terminal, _title(one)))
        if status == ENDED_EARLY:
            terminal.step("bench", "ended early")
            break
        if status:
            raise click.ClickException(f"{_title(one)} was not measured: {_reason(log)}")
    done = subprocess.run(  # noqa: S603  # our own interpreter and words
        [str(python), "-m", "quarterdeck.load", "report", str(out)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise click.ClickException(done.stderr.strip() or "the report was not written")
    terminal.block(done.stdout.rstrip())
    return status


def _title(one: Round) -> str:
    return "target" if one.server.name == "main" else one.server.name


def progress(terminal: Terminal, title: str) -> Callable[[str], None]:
    """Says a run's lines until its table comes: the tables of all rounds are told together, at the end."""
    is_over = False

    def say(line: str) -> None:
        nonlocal is_over
        is_over = is_over or line.startswith("scenario ")
        if line.strip() and not is_over and not line.startswith(REFUSAL):
            terminal.step(title, line)

    return say


def follow(command_line: list[str], environ: Mapping[str, str], log: Path, say: Callable[[str], None]) -> int:
    """Run a child to its end, its lines said and kept. Ctrl-C is handed to it: it ends early and leaves what it has."""
    with (
        log.open("w", encoding="utf-8") as kept,
        subprocess.Popen(  # noqa: S603  # our own interpreter and words
            command_line,
            env=dict(environ),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,  # a terminal's Ctrl-C reaches only us: the child takes a second one as "at once"
            preexec_fn=processes.die_with_parent,
        ) as child,
        _handing_on(child),
    ):
        for line in child.stdout or ():
            kept.write(line)
            say(line.rstrip())
        return child.wait()


@contextlib.contextmanager
def _handing_on(child: "subprocess.Popen[str]") -> Iterator[None]:
    before = signal.signal(signal.SIGINT, lambda *_: child.send_signal(signal.SIGINT))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _reason(log: Path) -> str:
    """The child's own words, in a line. Where they say it all, nothing is left behind that looks like a result."""
    lines = [line for line in log.read_text(encoding="utf-8").splitlines() if line.strip()]
    told = next((line for line in reversed(lines) if line.startswith(REFUSAL)), None)
    if told is None:
        return f"{lines[-1] if lines else 'it said nothing'}  (all of it: {log})"
    log.unlink()
    with contextlib.suppress(OSError):  # an earlier round's results are in it
        log.parent.rmdir()
    return told.removeprefix(REFUSAL)
