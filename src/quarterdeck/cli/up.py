"""`quarterdeck up`: reads what it is told, checks that it can be done, and hands over to the supervisor."""

import asyncio
import json
import shlex
import signal
import socket
import sys
from dataclasses import replace
from pathlib import Path
from typing import cast

import click

from quarterdeck import processes
from quarterdeck.cli import credentials, doors, redis_server, state
from quarterdeck.cli.child import StartError
from quarterdeck.cli.credentials import Credentials
from quarterdeck.cli.doors import Door, Doors, EngineKind, Interpreters
from quarterdeck.cli.supervisor import Platform, Supervisor, Work
from quarterdeck.cli.terminal import Terminal
from quarterdeck.settings.config import Config
from quarterdeck.settings.environment import Environment
from quarterdeck.settings.loading import load
from quarterdeck.settings.packaged import config_path

REFUSALS = (ValueError, StartError, state.StateError, redis_server.RedisServerError, credentials.CredentialsError)
"""Why it does not start, in a line for a person. (A ConfigError is a ValueError.)"""

QUESTION = "What is the capital of France?"


@click.command("up", short_help="Start the platform here and keep it up until Ctrl-C.")
@click.option(
    "--engine",
    type=click.Choice(["vllm", "sim", "none"]),
    default="vllm",
    show_default=True,
    help="vllm: Ray Serve with real models. sim: a simulated engine, in seconds. none: the file's endpoints only.",
)
@click.option(
    "--config",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="quarterdeck.yaml. Otherwise QUARTERDECK_CONFIG, otherwise the file that ships with the package.",
)
@click.option("--port", type=click.IntRange(1, 65535), help="The gateway's. Otherwise QUARTERDECK_PORT, or 8000.")
def command(engine: str, config: Path | None, port: int | None) -> None:
    """Start Redis, the engine, the worker and the gateway here; keep them up until Ctrl-C.

    Prints the base URL, this user's key and a curl line. Logs, database and credentials lie in the state folder
    (QUARTERDECK_STATE). The real engine runs in the environment beside this one, .envs/engine, or in the one whose
    python QUARTERDECK_ENGINE_PYTHON names.
    """
    terminal = Terminal()
    try:
        environment = Environment.read()
        if port is not None:
            environment = replace(environment, port=port)
        if config is not None:
            environment = replace(environment, config=config.absolute())
        status = _up(environment, cast("EngineKind", engine), terminal)
    except REFUSALS as error:
        raise click.ClickException(str(error)) from None
    sys.exit(status)


def _up(environment: Environment, kind: EngineKind, terminal: Terminal) -> int:
    file = config_path(environment)
    config = load(file)
    pythons = interpreters(environment)
    if kind == "vllm" and any(m.engine for m in config.models) and not pythons.engine.exists():
        raise StartError(f"no engine environment at {pythons.engine}: `make setup` makes it, or use --engine sim")
    processes.become_subreaper()
    state.prepare(environment.state)
    with state.locked(environment.state):
        if ended := state.end_left_over(environment.state):
            terminal.step("clean-up", f"{ended} process{'es' if ended > 1 else ''} of an earlier run ended")
        redis_argv = _redis_argv(environment, terminal)
        planned = doors.plan(environment, config, file, kind, pythons, redis_argv)
        _check_ports(environment, planned)
        local = "127.0.0.1" if environment.host in ("0.0.0.0", "::") else environment.host  # noqa: S104  # compared, not bound
        mine, is_new = credentials.ensure(environment.state, f"http://{local}:{environment.port}/v1")
        terminal.step("keys", f"{'made' if is_new else 'kept in'} {environment.state / credentials.FILENAME}")
        platform = _platform(environment, config, file, kind, pythons, planned, mine)
        return asyncio.run(_supervise(platform, terminal))


async def _supervise(platform: Platform, terminal: Terminal) -> int:
    supervisor = Supervisor(platform, terminal)
    loop = asyncio.get_running_loop()
    for sig in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # `nohup` has its way. SIGINT is ignored in whatever a script starts with `&`, and we want it all the same.
        if sig is not signal.SIGHUP or signal.getsignal(sig) is not signal.SIG_IGN:
            loop.add_signal_handler(sig, supervisor.interrupt)
    return await supervisor.run()


def _platform(
    environment: Environment,
    config: Config,
    file: Path,
    kind: EngineKind,
    pythons: Interpreters,
    planned: Doors,
    mine: Credentials,
) -> Platform:
    environ = doors.variables(environment, file, kind)
    packaged = doors.packaged_models(config) if kind == "vllm" else []
    argv = (str(pythons.engine), "-m", "quarterdeck.engine.packaged", *packaged)
    database = (str(pythons.core), "-m", "quarterdeck.cli.prepare")
    return Platform(
        doors=planned,
        work=Work(
            database=Door("database", database, environ, None, start_s=600, grace_s=5),
            models=Door("models", argv, environ, None, start_s=3600, grace_s=5) if packaged else None,
        ),
        redis_socket=environment.state / "redis" / "redis.sock" if planned.redis else None,
        logs=environment.state / "logs",
        models=tuple(m.name for m in config.models if m.engine) if planned.engine else (),
        chat_models=tuple(name for name in doors.chat_models(config) if planned.engine or _has_endpoints(config, name)),
        usable=lambda model: usable_text(mine, model, environment, Path(sys.prefix) / "bin" / "quarterdeck"),
    )


def _has_endpoints(config: Config, name: str) -> bool:
    return any(model.name == name and model.endpoints for model in config.models)


def interpreters(environment: Environment) -> Interpreters:
    """Ours, and the engine's: QUARTERDECK_ENGINE_PYTHON, or the environment beside ours in `.envs/`."""
    told = environment.variables.get("QUARTERDECK_ENGINE_PYTHON")
    beside = Path(sys.prefix).parent / "engine" / "bin" / "python"
    return Interpreters(core=Path(sys.executable), engine=Path(told) if told else beside)


def _redis_argv(environment: Environment, terminal: Terminal) -> tuple[str, ...] | None:
    folder = environment.state / "redis"
    if environment.redis_url != f"unix://{folder}/redis.sock":
        terminal.step("redis", "yours (QUARTERDECK_REDIS_URL)")
        return None
    server = redis_server.find(redis_server.wheel_binary())
    terminal.step("redis", f"{server.path} {server.version}, on a unix socket")
    return redis_server.arguments(server.path, folder)


def _check_ports(environment: Environment, planned: Doors) -> None:
    for variable, (host, port) in doors.ports(environment, planned).items():
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError as error:
                hint = " (or --port)" if variable == "QUARTERDECK_PORT" else ""
                raise StartError(f"{host}:{port} is taken ({error.strerror}): set {variable}{hint}") from None


def usable_text(mine: Credentials, model: str | None, environment: Environment, program: Path) -> str:
    """What a person needs now, ready to be pasted."""
    lines = [f"Chat is ready: {model}" if model else "The platform is up.", ""]
    lines += [
        f"  Base URL   {mine.base_url}",
        f"  API key    {mine.api_key}   (kept in {environment.state / credentials.FILENAME})",
        "",
    ]
    if model:
        body = json.dumps(
            {"model": model, "messages": [{"role": "user", "content": QUESTION}], "temperature": 0, "max_tokens": 64}
        )
        lines += [
            f"  curl {mine.base_url}/chat/completions -H 'Authorization: Bearer {mine.api_key}'"
            f" -H 'Content-Type: application/json' -d {shlex.quote(body)}",
            "",
        ]
    command = shlex.quote(str(program))
    lines += [
        f'  eval "$({command} env)"   points any OpenAI client of that shell here;  {command} chat   talks to it',
        f"  Logs: {environment.state / 'logs'}   Ctrl-C stops everything.",
    ]
    return "\n".join(lines)
