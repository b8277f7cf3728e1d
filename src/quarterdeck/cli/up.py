"""`quarterdeck up`: reads options and configuration, checks the machine, and runs the supervisor."""

import asyncio
import errno
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import click

from quarterdeck import processes
from quarterdeck.cli import credentials, detached, port_check, process_plan, redis_server, state
from quarterdeck.cli.credentials import Credentials
from quarterdeck.cli.environments import Layout
from quarterdeck.cli.managed_process import StartError
from quarterdeck.cli.process_plan import EngineKind, Interpreters, ProcessPlan, ProcessSpec, TraceBackend, TracesKind
from quarterdeck.cli.service_terminal import is_journal, terminal_for
from quarterdeck.cli.supervisor import Platform, Preparation, Supervisor
from quarterdeck.cli.terminal import Terminal
from quarterdeck.cli.usable import Banner
from quarterdeck.net.redis_address import RedisAddress
from quarterdeck.net.sockets import free_port
from quarterdeck.net.tls import CertificateFiles
from quarterdeck.settings.config import Config
from quarterdeck.settings.drop_ins import read_configuration
from quarterdeck.settings.environment import Environment
from quarterdeck.settings.packaged import config_path
from quarterdeck.store.postgres_url import SCHEMES as POSTGRES_SCHEMES
from quarterdeck.store.postgres_url import read_postgres_url

REFUSALS = (ValueError, StartError, state.StateError, redis_server.RedisServerError, credentials.CredentialsError)
"""Errors reported as one line. (ConfigError is a ValueError.)"""

FULL_DISK = (errno.ENOSPC, errno.EDQUOT)
PHOENIX_PORT = 6006
"""Its own default; PHOENIX_PORT changes it."""


@click.command("up", short_help="Start the platform and run it until Ctrl-C.")
@click.option(
    "--engine",
    type=click.Choice(["vllm", "sim", "none"]),
    default="vllm",
    show_default=True,
    help="vllm: real models on Ray Serve. sim: a simulated engine, starts in seconds. none: only the file's endpoints.",
)
@click.option(
    "--config",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Configuration file. Default: QUARTERDECK_CONFIG, else the file shipped with the package.",
)
@click.option(
    "--port", type=click.IntRange(1, 65535), help="Port of the gateway. Default: QUARTERDECK_PORT, else 8000."
)
@click.option(
    "--tls-cert",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Serve HTTPS with this certificate chain (PEM), read again when it changes. Needs --tls-key.",
)
@click.option(
    "--tls-key",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The certificate's private key (PEM, without a passphrase).",
)
@click.option(
    "--traces",
    type=click.Choice(["phoenix"]),
    help="Start a trace backend as well and send every trace to it. phoenix: Arize Phoenix in .envs/phoenix.",
)
@click.option(
    "--sim",
    "simulated",
    metavar="NAME=VALUE",
    multiple=True,
    help="Option of the simulated engine, such as time-to-first-token=300ms, inter-token-latency=20ms or"
    " failure-injection-rate=5; repeatable. docs/simulator.md lists them.",
)
@click.option("-d", "--detach", "is_detached", is_flag=True, help="Run in the background; return once it can be used.")
@click.option("--ready-fd", type=int, hidden=True)
def command(
    engine: str,
    config: Path | None,
    port: int | None,
    tls_cert: Path | None,
    tls_key: Path | None,
    traces: str | None,
    simulated: tuple[str, ...],
    is_detached: bool,
    ready_fd: int | None,
) -> None:
    """Start Redis, the engine, the worker and the gateway; run them until Ctrl-C.

    Prints the base URL, this user's API key and a curl command. Logs, database and credentials are in the state folder
    (QUARTERDECK_STATE). The real engine runs in the environment that `quarterdeck setup engine` (in a checkout: `make
    setup`) creates, or with the Python interpreter set in QUARTERDECK_ENGINE_PYTHON.
    """
    if simulated and engine != "sim":
        raise click.UsageError("--sim needs --engine sim")
    arguments = arguments_of(
        engine=engine, config=config, port=port, tls_cert=tls_cert, tls_key=tls_key, traces=traces, sim=simulated
    )
    try:
        environment = Environment.read()
        terminal = terminal_for(environment.variables)
        if is_detached:
            if state.is_locked(environment.state):
                raise state.StateError(f"the platform is already running on {environment.state}")
            sys.exit(detached.start(arguments, environment.state))
        for text in environment.ignored:
            terminal.step("settings", text)
        if port is not None:
            environment = replace(environment, port=port)
        if config is not None:
            environment = replace(environment, config=config.absolute())
        if (tls_cert is None) != (tls_key is None):
            raise click.UsageError("--tls-cert and --tls-key go together")
        if tls_cert is not None and tls_key is not None:
            environment = replace(environment, tls=(tls_cert.absolute(), tls_key.absolute()))
        try:
            status = _up(
                environment,
                cast("EngineKind", engine),
                cast("TracesKind | None", traces),
                terminal,
                simulated=simulated,
                arguments=arguments,
                ready_fd=ready_fd,
            )
        except OSError as error:
            if error.errno not in FULL_DISK:
                raise
            raise StartError(f"{error.strerror} in {environment.state}") from None
    except REFUSALS as error:
        raise click.ClickException(str(error)) from None
    sys.exit(status)


def arguments_of(**options: Any) -> list[str]:
    """The options as words of a command line, with whole paths: `restart` may run in another folder."""
    words: list[str] = []
    for name, value in options.items():
        for each in value if isinstance(value, tuple) else (value,):
            if each is not None:
                words += [f"--{name.replace('_', '-')}", str(each.absolute() if isinstance(each, Path) else each)]
    return words


def _up(
    environment: Environment,
    kind: EngineKind,
    traces: TracesKind | None,
    terminal: Terminal,
    *,
    simulated: tuple[str, ...],
    arguments: list[str],
    ready_fd: int | None,
) -> int:
    file = config_path(environment)
    config = read_configuration(environment)
    _check_urls(environment)
    if environment.tls is not None:
        CertificateFiles(*environment.tls).load()
    pythons = interpreters(environment)
    if kind == "vllm" and any(m.engine for m in config.models) and not pythons.engine.exists():
        how = Layout.find(environment.cache).how_to_make("engine")
        raise StartError(f"no engine environment at {pythons.engine}: run `{how}`, or use --engine sim")
    backend = _trace_backend(environment) if traces else None
    processes.become_subreaper()
    for text in state.prepare(environment.state):
        terminal.step("state", text)
    with state.locked(environment.state):
        if ended := state.stop_leftovers(environment.state):
            terminal.step("clean-up", f"stopped {ended} process{'es' if ended > 1 else ''} of an earlier run")
        redis_argv = _redis_argv(environment, terminal)
        planned = process_plan.make_plan(environment, config, file, kind, pythons, redis_argv, backend, simulated)
        if taken := port_check.problems(process_plan.ports(environment, planned)):
            raise StartError("\n".join(taken))
        user, is_new = credentials.ensure(environment.state, f"{environment.gateway_url}/v1")
        credentials.link_certificate(environment.state, environment.tls[0] if environment.tls else None)
        terminal.step("keys", f"{'created' if is_new else 'found'} {environment.state / credentials.FILENAME}")
        detached.keep_options(arguments, environment.state)
        platform = _platform(environment, config, file, kind, pythons, planned, user, ready_fd)
        return asyncio.run(_supervise(platform, terminal))


async def _supervise(platform: Platform, terminal: Terminal) -> int:
    supervisor = Supervisor(platform, terminal)
    loop = asyncio.get_running_loop()
    for sig in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # Respect nohup. A background job of a script ignores SIGINT; handle it anyway.
        if sig is not signal.SIGHUP or signal.getsignal(sig) is not signal.SIG_IGN:
            loop.add_signal_handler(sig, supervisor.interrupt)
    return await supervisor.run()


def _platform(
    environment: Environment,
    config: Config,
    file: Path,
    kind: EngineKind,
    pythons: Interpreters,
    planned: ProcessPlan,
    user: Credentials,
    ready_fd: int | None,
) -> Platform:
    environ = process_plan.variables(environment, file, kind)
    packaged = process_plan.packaged_models(config) if kind == "vllm" else []
    argv = (str(pythons.engine), "-m", "quarterdeck.engine.packaged", *packaged)
    database = (str(pythons.core), "-m", "quarterdeck.cli.prepare_database")
    return Platform(
        plan=planned,
        preparation=Preparation(
            database=ProcessSpec("database", database, environ, None, start_s=600, grace_s=5),
            models=ProcessSpec("models", argv, environ, None, start_s=3600, grace_s=5) if packaged else None,
        ),
        redis_socket=environment.state / "redis" / "redis.sock" if planned.redis else None,
        logs=environment.state / "logs",
        models=tuple(m.name for m in config.models if m.engine) if planned.engine else (),
        chat_models=tuple(
            name for name in process_plan.chat_models(config) if planned.engine or _has_endpoints(config, name)
        ),
        usable=_usable(environment, kind, user, ready_fd),
    )


def _usable(
    environment: Environment, kind: EngineKind, user: Credentials, ready_fd: int | None
) -> Callable[[str | None], str]:
    """The text once the platform can be used; empty where another process shows it. A journal or a log does not get
    the key."""
    is_service = is_journal(environment.variables) or bool(environment.variables.get("NOTIFY_SOCKET"))
    program = Path(sys.prefix) / "bin" / "quarterdeck"
    banner = Banner(user, environment.state, program, kind == "sim", shows_key=not is_service and ready_fd is None)
    if ready_fd is None:
        return banner.text

    def told(model: str | None) -> str:
        ends_with = f"{program} down   stops it."
        detached.tell(ready_fd, replace(banner, shows_key=True, ends_with=ends_with).text(model))
        return ""  # the process that waits shows it, beside the log's lines

    return told


def _has_endpoints(config: Config, name: str) -> bool:
    return any(model.name == name and model.endpoints for model in config.models)


def interpreters(environment: Environment) -> Interpreters:
    """This interpreter and the engine's: QUARTERDECK_ENGINE_PYTHON, or that of this installation (`environments`)."""
    named = environment.variables.get("QUARTERDECK_ENGINE_PYTHON")
    return Interpreters(
        core=Path(sys.executable), engine=Path(named) if named else Layout.find(environment.cache).python("engine")
    )


def _trace_backend(environment: Environment) -> TraceBackend:
    """Phoenix, in the environment `phoenix` beside this one. Raises StartError where there is none."""
    layout = Layout.find(environment.cache)
    python = layout.python("phoenix")
    if not python.exists():
        raise StartError(f"no Phoenix environment at {python}: run `{layout.how_to_make('phoenix')}`")
    port = environment.variables.get("PHOENIX_PORT") or str(PHOENIX_PORT)
    if not port.isdecimal() or not 0 < int(port) <= 65535:
        raise StartError(f"PHOENIX_PORT must be a port number, not {port!r}")
    return TraceBackend(python, int(port), free_port())


def _redis_argv(environment: Environment, terminal: Terminal) -> tuple[str, ...] | None:
    folder = environment.state / "redis"
    if RedisAddress.parse(environment.redis_url).servers[0].path != f"{folder}/redis.sock":
        terminal.step("redis", "external (QUARTERDECK_REDIS_URL)")
        return None
    if redis_server.find(environment.cache) is None:
        terminal.step("redis", "downloading a redis-server (once, 6 MB): PATH has none")
    server = redis_server.ensure(environment.cache)
    terminal.step("redis", f"{server.path} {server.version}, on a unix socket")
    return redis_server.arguments(server.path, folder)


def _check_urls(environment: Environment) -> None:
    """Refuse a malformed address before anything starts: an engine takes minutes. Raises StartError."""
    url = environment.database_url
    try:
        RedisAddress.parse(environment.redis_url)
    except ValueError as error:
        raise StartError(f"QUARTERDECK_REDIS_URL: {error}") from None
    try:
        if url.partition("://")[0] in POSTGRES_SCHEMES:
            read_postgres_url(url)
    except ValueError as error:
        raise StartError(f"QUARTERDECK_DATABASE_URL: {error}") from None
