"""The processes of the platform on this machine and how each one is started. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from quarterdeck.cli.state import RUN_VARIABLE, run_id
from quarterdeck.settings.config import Config
from quarterdeck.settings.engine import PACKAGED
from quarterdeck.settings.environment import Environment
from quarterdeck.settings.shutdown import SHUTDOWN_SECONDS

EngineKind = Literal["vllm", "sim", "none"]
TracesKind = Literal["phoenix"]


@dataclass(frozen=True, slots=True)
class ProcessSpec:
    """How `up` starts and monitors a process."""

    name: str
    argv: tuple[str, ...]
    environ: Mapping[str, str]
    health: str | None
    """URL that answers below 500 once the process is serving. None: checked differently (Redis)."""
    start_s: float
    """Seconds from start to the first successful health check."""
    grace_s: float
    """Seconds from SIGTERM to exit."""
    shows: str = ""
    """What the user is shown once it serves."""
    umask: int = -1
    """Of the files that it creates; -1: as `up` has it. An engine's weights may be in a cache that users share."""


@dataclass(frozen=True, slots=True)
class ProcessPlan:
    """The platform's processes. None: external, or not used."""

    redis: ProcessSpec | None
    engine: ProcessSpec | None
    worker: ProcessSpec
    gateway: ProcessSpec
    traces: ProcessSpec | None = None


@dataclass(frozen=True, slots=True)
class TraceBackend:
    """Arize Phoenix on this machine."""

    python: Path
    """The interpreter of its environment."""
    port: int
    grpc_port: int
    """It opens one in any case; nothing here uses it."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@dataclass(frozen=True, slots=True)
class Interpreters:
    """Python interpreters of the two environments."""

    core: Path
    engine: Path
    has_engine: bool = True
    """Whether the engine's exists. Without it the engine is not started where no model needs it."""


def variables(
    environment: Environment, config_file: Path, kind: EngineKind, traces: TraceBackend | None = None
) -> dict[str, str]:
    """Environment of every process of the run: the user's variables, with ours resolved."""
    engine_url = environment.engine_url if kind == "none" else f"http://127.0.0.1:{environment.engine_port}"
    resolved = {
        "QUARTERDECK_CONFIG": str(config_file),
        "QUARTERDECK_STATE": str(environment.state),
        "QUARTERDECK_CACHE": str(environment.cache),
        "QUARTERDECK_REDIS_URL": environment.redis_url,
        "QUARTERDECK_DATABASE_URL": environment.database_url,
        "QUARTERDECK_HOST": environment.host,
        "QUARTERDECK_PORT": str(environment.port),
        "QUARTERDECK_WORKER_PORT": str(environment.worker_port),
        "QUARTERDECK_ENGINE_PORT": str(environment.engine_port),
        RUN_VARIABLE: run_id(environment.state),
    }
    if environment.tls is not None:
        names = ("QUARTERDECK_TLS_CERT", "QUARTERDECK_TLS_KEY")
        resolved |= {name: str(file) for name, file in zip(names, environment.tls, strict=True)}
    if engine_url:
        resolved["QUARTERDECK_ENGINE_URL"] = engine_url
    if traces is not None:
        resolved["PHOENIX_COLLECTOR_ENDPOINT"] = traces.url
    return {**environment.variables, **resolved}


def make_plan(
    environment: Environment,
    config: Config,
    config_file: Path,
    kind: EngineKind,
    pythons: Interpreters,
    redis_argv: tuple[str, ...] | None,
    traces: TraceBackend | None = None,
    simulated: Sequence[str] = (),
) -> ProcessPlan:
    """Plan the processes. `redis_argv` None: the user's own Redis (QUARTERDECK_REDIS_URL). `simulated`: options of the
    simulated engine, `name=value`."""
    environ = variables(environment, config_file, kind, traces)
    return ProcessPlan(
        traces=_phoenix(environment, traces) if traces is not None else None,
        redis=ProcessSpec("redis", redis_argv, environ, None, start_s=60, grace_s=10, umask=0o077)
        if redis_argv
        else None,
        engine=_engine(environment, config, kind, pythons, environ, simulated),
        worker=ProcessSpec(
            "worker",
            (str(pythons.core), "-m", "quarterdeck.worker"),
            environ,
            f"{environment.url_of(environment.worker_port)}/healthz",
            start_s=60,
            grace_s=20,
            umask=0o077,
        ),
        gateway=ProcessSpec(
            "gateway",
            (str(pythons.core), "-m", "quarterdeck.gateway"),
            environ,
            f"{environment.gateway_url}/healthz",
            start_s=60,
            grace_s=(config.gateway.shutdown_delay_seconds or 0) + config.gateway.drain_seconds + SHUTDOWN_SECONDS,
            umask=0o077,
        ),
    )


def _phoenix(environment: Environment, traces: TraceBackend) -> ProcessSpec:
    """Its own variables go before the user's: only this process reads them."""
    environ = {
        **environment.variables,
        "PHOENIX_WORKING_DIR": str(environment.state / "phoenix"),
        "PHOENIX_HOST": "127.0.0.1",
        "PHOENIX_PORT": str(traces.port),
        "PHOENIX_GRPC_PORT": str(traces.grpc_port),
        "PHOENIX_TELEMETRY_ENABLED": "false",  # it would tell its maker of its use
        "PHOENIX_ALLOW_EXTERNAL_RESOURCES": "false",
    }
    argv = (str(traces.python), "-m", "phoenix.server.main", "serve")
    health, shows = f"{traces.url}/healthz", f"traces at {traces.url}"
    return ProcessSpec("traces", argv, environ, health, start_s=300, grace_s=10, shows=shows)


def _engine(
    environment: Environment,
    config: Config,
    kind: EngineKind,
    pythons: Interpreters,
    environ: Mapping[str, str],
    simulated: Sequence[str],
) -> ProcessSpec | None:
    if kind == "none":
        return None
    health = f"http://127.0.0.1:{environment.engine_port}/endpoints"
    if kind == "sim":
        argv = (str(pythons.core), "-m", "quarterdeck.simulator", "--port", str(environment.engine_port))
        options = simulator_words(simulated)
        return ProcessSpec("engine", (*argv, "--follow-config", *options), environ, health, start_s=60, grace_s=20)
    if not pythons.has_engine and not any(model.engine for model in config.models):
        return None
    # The engine answers at once, and reports the state of each model itself. Without models it starts no Ray.
    real = (str(pythons.engine), "-m", "quarterdeck.engine")
    return ProcessSpec("engine", real, environ, health, start_s=300, grace_s=60)


def simulator_words(options: Sequence[str]) -> list[str]:
    """Options such as `time-to-first-token=300ms` as words of the simulator's command line."""
    words: list[str] = []
    for text in options:
        name, is_given, value = text.lstrip("-").partition("=")
        words += [f"--{name}", value] if is_given else [f"--{name}"]
    return words


def packaged_models(config: Config) -> list[str]:
    """Packaged models to prepare before the engine starts."""
    return [m.engine.source.removeprefix(PACKAGED) for m in config.models if m.engine and m.engine.is_packaged]


def chat_models(config: Config) -> list[str]:
    """Models that answer a chat. The platform is usable once one of them is ready."""
    return [model.name for model in config.models if model.engine is None or model.engine.task == "generate"]


def ports(environment: Environment, planned: ProcessPlan) -> dict[str, tuple[str, int]]:
    """Addresses that must be free, by environment variable."""
    wanted = {
        "QUARTERDECK_PORT": (environment.host, environment.port),
        "QUARTERDECK_WORKER_PORT": (environment.host, environment.worker_port),
    }
    if planned.engine:
        wanted["QUARTERDECK_ENGINE_PORT"] = ("127.0.0.1", environment.engine_port)
    if planned.traces:
        wanted["PHOENIX_PORT"] = ("127.0.0.1", int(planned.traces.environ["PHOENIX_PORT"]))
    return wanted
