"""The `run` command: its arguments, the target it finds, and the role of this process (local, master or worker)."""

import argparse
import sys
import time
from pathlib import Path
from typing import Any, Protocol

from quarterdeck import processes
from quarterdeck.load.run import arrivals, monitoring, profile_options, target
from quarterdeck.load.run.profile import Profile, ProfileError
from quarterdeck.load.run.target import Target, TargetError
from quarterdeck.settings import durations
from quarterdeck.settings.environment import Environment

RESULTS = Path("loadtests/results")
MASTER_PORT = 5557
KEY_VARIABLE = "QUARTERDECK_LOAD_KEY"
"""How a master passes the key to its workers: every user of the machine can read command lines."""
NO_KEY = "none"
"""The placeholder key: OpenAI clients must send one even to servers that require none."""
_MASTER_ONLY = ("--workers", "--key", "--out", "--budgets", "--watch")


class RunFinished(Protocol):
    """Called with each complete result folder; returns the exit status."""

    def __call__(self, folder: Path, *, state: Path | None) -> int: ...


def add_arguments(parser: argparse.ArgumentParser) -> None:
    _add_load(parser.add_argument_group("load"))
    _add_target(parser.add_argument_group("target"))
    _add_output(parser.add_argument_group("output"))
    _add_roles(parser.add_argument_group("more processes, more machines"))


def _add_load(group: Any) -> None:
    group.add_argument(
        "profile", nargs="?", help=f"a YAML file, or a name in {profile_options.PROFILES} (default: default)"
    )
    group.add_argument("--profile", dest="profile_file", metavar="FILE", help="the profile, as an option")
    group.add_argument(
        "--rate", metavar="N[,N…]", help="arrivals per second instead of the profile's shape; a list makes steps"
    )
    group.add_argument("--users", type=int, metavar="N", help="a closed loop of N users instead of arrivals")
    group.add_argument("--arrivals", choices=("constant", "poisson", "trace"), help="distribution of arrivals")
    group.add_argument("--trace", metavar="FILE", help="CSV file for --arrivals trace")
    group.add_argument("--duration", type=durations.parse, metavar="TIME", help="90s, 2m; with several rates, per rate")
    group.add_argument("--warmup", type=durations.parse, metavar="TIME", help="time at the start excluded from results")
    group.add_argument("--seed", type=int, metavar="N", help="seed of prompts and arrival times")
    group.add_argument("--scenarios", metavar="NAME[=WEIGHT],…", help="instead of the profile's: stream=3,chat=1")
    group.add_argument("--max-tokens", type=int, metavar="N", help="output tokens per answer")
    group.add_argument("--input-tokens", type=int, metavar="N", help="approximate input tokens per request")
    group.add_argument("--slo", metavar="NAME=MS,…", help="latency objectives: ttft_ms=500,itl_ms=50,total_ms=…")


def _add_target(group: Any) -> None:
    group.add_argument("--url", help="base URL with /v1 (default: the platform on this machine, see `quarterdeck up`)")
    group.add_argument("--key", help="API key (default: this user's for the local platform, else OPENAI_API_KEY)")
    group.add_argument("--model", help="default: the first that answers a chat")
    group.add_argument("--embedding-model", metavar="MODEL", help="default: the first that answers embeddings")


def _add_output(group: Any) -> None:
    group.add_argument("--out", type=Path, metavar="FOLDER", help=f"default: {RESULTS}/<time>-<profile>")
    group.add_argument(
        "--budgets", type=Path, metavar="FILE", help="check these budgets at the end; exit 1 if one is exceeded"
    )
    group.add_argument("--web", type=int, nargs="?", const=8089, metavar="PORT", help="start locust's web UI (8089)")
    group.add_argument("--watch", action="append", default=[], metavar="NAME=PID", help="also record this process")
    group.add_argument("--no-report", action="store_true", help="do not write report.html")


def _add_roles(group: Any) -> None:
    group.add_argument("--workers", type=int, default=0, metavar="N", help="worker processes on this machine")
    group.add_argument("--role", choices=("local", "master", "worker"), default="local", help=argparse.SUPPRESS)
    group.add_argument(
        "--expect-workers", type=int, default=0, metavar="N", help="run as master and wait for N remote workers"
    )
    group.add_argument("--master-port", type=int, default=MASTER_PORT, metavar="PORT", help="default: %(default)s")
    group.add_argument("--master", metavar="HOST[:PORT]", help="run as a worker of this master")
    group.add_argument("--die-with-parent", action="store_true", help=argparse.SUPPRESS)


def run(options: argparse.Namespace, finished: RunFinished) -> int:
    """Run as local process, master or worker. Returns the exit status; 2: it could not start."""
    try:
        environment = Environment.read()
        is_real = options.url is None and monitoring.has_real_engine(environment.state)
        default = profile_options.REAL_PROFILE if is_real else profile_options.DEFAULT_PROFILE
        profile = profile_options.profile_of(options, default)
        arrivals.check(profile)
    except (ProfileError, ValueError) as error:
        return _refuse(error)
    if options.master or options.role == "worker":
        return _run_worker(options, profile, environment)
    return _run_master(options, profile, environment, finished)


def _run_worker(options: argparse.Namespace, profile: Profile, environment: Environment) -> int:
    if options.die_with_parent:
        processes.die_with_parent()
    try:
        from quarterdeck.load.run import worker
    except ModuleNotFoundError as error:
        return _refuse(_without_locust(error))
    host, _, port = (options.master or "127.0.0.1").partition(":")
    _, key = _url_and_key(options, environment)
    return worker.work(profile, key, host, int(port or options.master_port))


def _run_master(options: argparse.Namespace, profile: Profile, environment: Environment, finished: RunFinished) -> int:
    try:
        from quarterdeck.load.run import coordinator  # first: it patches the standard library
    except ModuleNotFoundError as error:
        return _refuse(_without_locust(error))
    from quarterdeck.load.run.worker_processes import WorkerProcesses, WorkersError

    if options.budgets is not None and not options.budgets.is_file():
        return _refuse(f"{options.budgets}: no such file")
    url, key = _url_and_key(options, environment)
    if url is None:
        return _refuse(
            f"no --url given, and no platform found on this machine (no credentials in {environment.state}):"
            " start one with `make run`"
        )
    try:
        found = _find_target(options, profile, url, key)
        watch = _watched(options.watch)
    except (TargetError, ValueError) as error:
        return _refuse(error)
    local = target.local(environment.state)
    is_local = local is not None and local[0] == found.url
    state = environment.state if is_local else None
    run_options = coordinator.RunOptions(
        folder=lambda: _result_folder(options.out, profile.name),
        state=state,
        watch=watch,
        web_port=options.web,
        master_port=options.master_port if options.expect_workers else None,
        expect_workers=options.expect_workers or options.workers,
        on_finished=lambda folder: finished(folder, state=state),
    )
    workers = None
    if options.workers:
        workers = WorkerProcesses(
            options.workers, _worker_arguments(sys.argv[2:]), {**environment.variables, KEY_VARIABLE: key}
        )
    print(f"{profile.name}: {found.model} at {found.url}, {profile.length:.0f} s, seed {profile.seed}", flush=True)
    try:
        return coordinator.Coordinator(profile, found, run_options, workers).run()
    except (WorkersError, ProfileError, OSError) as error:
        return _refuse(error)


def _find_target(options: argparse.Namespace, profile: Profile, url: str, key: str) -> Target:
    """Raises TargetError."""
    wants_embeddings = profile.scenarios.embeddings is not None
    found = target.find(url, key, options.model, options.embedding_model, wants_embeddings=wants_embeddings)
    if wants_embeddings and found.embedding_model is None:
        raise TargetError(f"{found.url}: no model answers embeddings, which profile {profile.name} requires")
    return found


def _url_and_key(options: argparse.Namespace, environment: Environment) -> tuple[str | None, str]:
    """From the command line, the state folder or the environment."""
    local = target.local(environment.state)
    url = options.url or (local[0] if local else None)
    is_local = local is not None and url is not None and url.rstrip("/") in (local[0], local[0].removesuffix("/v1"))
    variables = environment.variables
    if options.key is None and KEY_VARIABLE in variables:
        return url, variables[KEY_VARIABLE] or NO_KEY  # empty: the parent process has no key for this server
    key = options.key or (local[1] if local and is_local else variables.get("OPENAI_API_KEY"))
    return url, key or NO_KEY


def _watched(texts: list[str]) -> dict[str, int]:
    """NAME=PID options, as name → pid. Raises ValueError."""
    found = {}
    for text in texts:
        name, _, pid = text.partition("=")
        if not pid.isdecimal():
            raise ValueError(f"--watch {text}: expected NAME=PID")
        found[name] = int(pid)
    return found


def _result_folder(out: Path | None, name: str) -> Path:
    """A new folder; with the web UI a second run gets one beside the first."""
    wanted = out or RESULTS / f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{name}"
    folder, number = wanted, 1
    while (folder / "run.json").exists():
        number += 1
        folder = wanted.with_name(f"{wanted.name}-{number}")
    return folder


def _worker_arguments(arguments: list[str]) -> list[str]:
    """The master's arguments without those that only a master uses; workers need the profile."""
    kept, skip = [], False
    for argument in arguments:
        if skip:
            skip = False
        elif argument in _MASTER_ONLY:
            skip = True
        elif argument.partition("=")[0] not in (*_MASTER_ONLY, "--web"):
            kept.append(argument)
    return kept


def _without_locust(error: ModuleNotFoundError) -> str:
    return f"{error.name} is not installed: run `make env-load`, then .envs/load/bin/python -m quarterdeck.load …"


def _refuse(error: object) -> int:
    print(f"error: {error}", file=sys.stderr)
    return 2
