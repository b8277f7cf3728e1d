"""The words after `python -m quarterdeck.load`, and the profile they make. Pure but for reading the profile's file."""

import argparse
from pathlib import Path
from typing import Any

from quarterdeck.load.durations import seconds
from quarterdeck.load.run import profile as profiles
from quarterdeck.load.run.profile import Profile, ProfileError

DEFAULT_PROFILE = "default"
REAL_PROFILE = "real"
"""What is asked of a real engine on this machine where nothing is named: the default one would only fill its queue."""
DEFAULT_SCENARIOS = {"stream": {"max_tokens": 64}}
"""Where no profile is named but a rate is: streams, which is what people measure."""
PROFILES = Path("loadtests/profiles")
RESULTS = Path("loadtests/results")
BUDGETS = Path("loadtests/budgets.yaml")
MASTER_PORT = 5557


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m quarterdeck.load",
        description="Load tests of any OpenAI-compatible server. Start with: run",
    )
    commands = made.add_subparsers(dest="command", required=True, metavar="run | report | check")
    run = commands.add_parser("run", help="run a profile, write its folder and its report, check its budgets")
    _add_what(run.add_argument_group("what is asked"))
    _add_whom(run.add_argument_group("who is asked"))
    _add_how(run.add_argument_group("how it is run"))
    _add_roles(run.add_argument_group("more processes, more machines"))
    report = commands.add_parser("report", help="write report.html of a run's folder (of two: side by side)")
    report.add_argument("folder", type=Path)
    report.add_argument("other", type=Path, nargs="?")
    check = commands.add_parser("check", help="check a run's folder against budgets; exit status 1: one is broken")
    check.add_argument("folder", type=Path)
    check.add_argument("--budgets", type=Path, default=BUDGETS, metavar="FILE", help="default: %(default)s")
    return made


def _add_what(group: Any) -> None:
    group.add_argument("profile", nargs="?", help=f"a YAML file, or a name in {PROFILES} (default: default)")
    group.add_argument("--profile", dest="profile_file", metavar="FILE", help="the same, by its name")
    group.add_argument(
        "--rate", metavar="N[,N…]", help="arrivals a second, instead of the profile's shape; several: steps"
    )
    group.add_argument("--users", type=int, metavar="N", help="a closed loop of so many users, instead of arrivals")
    group.add_argument("--arrivals", choices=("constant", "poisson", "trace"), help="how arrivals are spread")
    group.add_argument("--trace", metavar="FILE", help="the CSV file of --arrivals trace")
    group.add_argument("--duration", type=seconds, metavar="TIME", help="90s, 2m; of several rates: of each")
    group.add_argument("--warmup", type=seconds, metavar="TIME", help="so long at the start is left out of the numbers")
    group.add_argument("--seed", type=int, metavar="N", help="another seed asks other questions at other moments")
    group.add_argument("--scenarios", metavar="NAME[=WEIGHT],…", help="instead of the profile's: stream=3,chat=1")
    group.add_argument("--max-tokens", type=int, metavar="N", help="of every answer")
    group.add_argument("--input-tokens", type=int, metavar="N", help="of every question, about")
    group.add_argument("--slo", metavar="NAME=MS,…", help="what a good answer is: ttft_ms=500,itl_ms=50,total_ms=…")


def _add_whom(group: Any) -> None:
    group.add_argument("--url", help="base URL with /v1; default: the platform on this machine (`quarterdeck up`)")
    group.add_argument("--key", help="default: this user's for the local platform, else OPENAI_API_KEY")
    group.add_argument("--model", help="default: the first that answers a chat")
    group.add_argument("--embedding-model", metavar="MODEL", help="default: the first that answers embeddings")


def _add_how(group: Any) -> None:
    group.add_argument("--out", type=Path, metavar="FOLDER", help=f"default: {RESULTS}/<time>-<profile>")
    group.add_argument(
        "--budgets", type=Path, metavar="FILE", help="check these at the end; exit status 1: one is broken"
    )
    group.add_argument("--web", type=int, nargs="?", const=8089, metavar="PORT", help="with locust's web UI (8089)")
    group.add_argument("--watch", action="append", default=[], metavar="NAME=PID", help="record a process, too")
    group.add_argument("--no-report", action="store_true", help="write no report.html")


def _add_roles(group: Any) -> None:
    group.add_argument("--workers", type=int, default=0, metavar="N", help="so many processes on this machine")
    group.add_argument("--role", choices=("local", "master", "worker"), default="local", help=argparse.SUPPRESS)
    group.add_argument(
        "--expect-workers", type=int, default=0, metavar="N", help="be a master; so many come from elsewhere"
    )
    group.add_argument("--master-port", type=int, default=MASTER_PORT, metavar="PORT", help="default: %(default)s")
    group.add_argument("--master", metavar="HOST[:PORT]", help="be a worker of this master")
    group.add_argument("--die-with-parent", action="store_true", help=argparse.SUPPRESS)


def profile_of(told: argparse.Namespace, default: str = DEFAULT_PROFILE) -> Profile:
    """The profile's file with what the command line says otherwise. Raises ProfileError."""
    name = told.profile_file or told.profile
    is_bare = name is None and (told.rate or told.users or told.arrivals == "trace")
    values: dict[str, Any]
    if is_bare:
        values = {"name": "command-line", "scenarios": DEFAULT_SCENARIOS}
    else:
        values = profiles.read(_file(name or default))
    return profiles.make(_said_otherwise(values, told), name or "the command line")


def _file(name: str) -> Path:
    for file in (Path(name), PROFILES / f"{name}.yaml"):
        if file.is_file():
            return file
    known = ", ".join(sorted(file.stem for file in PROFILES.glob("*.yaml"))) or "none"
    raise ProfileError(f"no profile {name!r}: neither a file nor in {PROFILES} ({known})")


def _said_otherwise(values: dict[str, Any], told: argparse.Namespace) -> dict[str, Any]:
    found = dict(values)
    for name in ("duration", "warmup", "seed", "arrivals"):
        if (value := getattr(told, name)) is not None:
            found[name] = value
    if told.trace:
        found["trace"] = {**(found.get("trace") or {}), "file": told.trace}
        found["arrivals"] = "trace"
    if told.rate:
        levels = [_number(text, "--rate") for text in told.rate.split(",")]
        each = found.get("duration", 60)
        found["shape"] = {"kind": "constant", "level": levels[0]}
        if len(levels) > 1:
            found["shape"] = {"kind": "steps", "levels": levels, "each": each}
        if found.get("arrivals") == "users":
            found["arrivals"] = "poisson"
    if told.users:
        found |= {"arrivals": "users", "shape": {"kind": "constant", "level": told.users}}
        found.pop("trace", None)
    if told.scenarios:
        pairs = (text.partition("=") for text in told.scenarios.split(","))
        found["scenarios"] = {name: {"weight": _number(weight or "1", "--scenarios")} for name, _, weight in pairs}
    for name in ("max_tokens", "input_tokens"):
        if (value := getattr(told, name)) is not None:
            asked = {key: dict(asking or {}) for key, asking in found.get("scenarios", {}).items()}
            found["scenarios"] = {key: {**asking, name: value} for key, asking in asked.items()}
    if told.slo:
        pairs = (text.partition("=") for text in told.slo.split(","))
        found["slo"] = {name: _number(value, "--slo") for name, _, value in pairs}
    return found


def _number(text: str, option: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ProfileError(f"{option}: {text!r} is no number") from None
