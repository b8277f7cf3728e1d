"""`python -m quarterdeck.load run | report | check`: the load door, on the environment `load`."""

import argparse
import sys
import time
from pathlib import Path

from quarterdeck import processes
from quarterdeck.load import arguments
from quarterdeck.load.run import arrivals, watching
from quarterdeck.load.run.profile import Profile, ProfileError
from quarterdeck.settings.environment import Environment

KEY_VARIABLE = "QUARTERDECK_LOAD_KEY"
"""How a master hands the key to its workers: a command line can be read by everybody on the machine."""


NO_KEY = "none"
"""An OpenAI client must send something, also to a server that asks for nothing."""


def main() -> int:
    told = arguments.parser().parse_args()
    if told.command == "report":
        from quarterdeck.load import commands

        return commands.write_report(told.folder, told.other)
    if told.command == "check":
        from quarterdeck.load import commands

        return commands.check(told.folder, told.budgets)
    try:
        environment = Environment.read()
        is_real = told.url is None and watching.has_real_engine(environment.state)
        profile = arguments.profile_of(told, arguments.REAL_PROFILE if is_real else arguments.DEFAULT_PROFILE)
        arrivals.check(profile)
    except (ProfileError, ValueError) as error:
        return _refuse(error)
    if told.master or told.role == "worker":
        return _work(told, profile, environment)
    return _run(told, profile, environment)


def _work(told: argparse.Namespace, profile: Profile, environment: Environment) -> int:
    if told.die_with_parent:
        processes.die_with_parent()
    try:
        from quarterdeck.load.run import worker
    except ModuleNotFoundError as error:
        return _refuse(_without_locust(error))
    host, _, port = (told.master or "127.0.0.1").partition(":")
    _, key = _whom(told, environment)
    return worker.work(profile, key, host, int(port or told.master_port))


def _run(told: argparse.Namespace, profile: Profile, environment: Environment) -> int:
    try:
        from quarterdeck.load.run import conductor  # first: it patches the standard library
    except ModuleNotFoundError as error:
        return _refuse(_without_locust(error))
    from quarterdeck.load.report import ended
    from quarterdeck.load.run import target
    from quarterdeck.load.run.worker_processes import WorkerProcesses, WorkersError

    if told.budgets is not None and not told.budgets.is_file():
        return _refuse(f"no budgets at {told.budgets}")
    url, key = _whom(told, environment)
    if url is None:
        return _refuse(
            f"no --url, and no platform of this user on this machine (no credentials in {environment.state}):"
            " `make run` starts one"
        )
    wants_embeddings = profile.scenarios.embeddings is not None
    try:
        found = target.find(url, key, told.model, told.embedding_model, wants_embeddings=wants_embeddings)
        if wants_embeddings and found.embedding_model is None:
            raise target.TargetError(
                f"{found.url}: none of its models answers embeddings, which {profile.name} asks for"
            )
        watch = _watched(told.watch)
    except (target.TargetError, ValueError) as error:
        return _refuse(error)
    local = target.local(environment.state)
    is_local = local is not None and local[0] == found.url
    wishes = conductor.Wishes(
        folder=lambda: _folder(told.out, profile.name),
        state=environment.state,
        is_local=is_local,
        watch=watch,
        web_port=told.web,
        master_port=told.master_port if told.expect_workers else None,
        expect_workers=told.expect_workers or told.workers,
        finished=lambda folder: ended.tell(
            folder, told.budgets, environment.state if is_local else None, with_report=not told.no_report
        ),
    )
    workers = None
    if told.workers:
        workers = WorkerProcesses(told.workers, _words_for_workers(), {**environment.variables, KEY_VARIABLE: key})
    print(f"{profile.name}: {found.model} at {found.url}, {profile.length:.0f} s, seed {profile.seed}", flush=True)
    try:
        return conductor.Conductor(profile, found, wishes, workers).run()
    except (WorkersError, ProfileError, OSError) as error:
        return _refuse(error)


def _whom(told: argparse.Namespace, environment: Environment) -> tuple[str | None, str]:
    """(URL, key), from the command line, the state folder or the environment."""
    from quarterdeck.load.run import target

    local = target.local(environment.state)
    url = told.url or (local[0] if local else None)
    is_local = local is not None and url is not None and url.rstrip("/") in (local[0], local[0].removesuffix("/v1"))
    variables = environment.variables
    if told.key is None and KEY_VARIABLE in variables:
        return url, variables[KEY_VARIABLE] or NO_KEY  # empty: whoever started us has none for this server
    key = told.key or (local[1] if local and is_local else variables.get("OPENAI_API_KEY"))
    return url, key or NO_KEY


def _watched(words: list[str]) -> dict[str, int]:
    found = {}
    for word in words:
        name, _, pid = word.partition("=")
        if not pid.isdecimal():
            raise ValueError(f"--watch {word}: write NAME=PID")
        found[name] = int(pid)
    return found


def _folder(told: Path | None, name: str) -> Path:
    """A fresh folder; a second run of the web UI gets one beside the first."""
    wanted = told or arguments.RESULTS / f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{name}"
    folder, number = wanted, 1
    while (folder / "run.json").exists():
        number += 1
        folder = wanted.with_name(f"{wanted.name}-{number}")
    return folder


def _words_for_workers() -> list[str]:
    """Our own words, without those that are the master's: the profile is what counts."""
    words, skip = [], False
    for word in sys.argv[2:]:
        if skip:
            skip = False
        elif word in ("--workers", "--key", "--out", "--budgets", "--watch"):
            skip = True
        elif word.partition("=")[0] not in ("--workers", "--key", "--out", "--budgets", "--watch", "--web"):
            words.append(word)
    return words


def _without_locust(error: ModuleNotFoundError) -> str:
    return f"{error.name} is not installed here: `make env-load`, then .envs/load/bin/python -m quarterdeck.load …"


def _refuse(error: object) -> int:
    print(f"error: {error}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
