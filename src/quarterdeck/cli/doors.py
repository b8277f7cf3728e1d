"""Which processes make up the platform on this machine, and how each is started. Pure: values in, values out."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from quarterdeck.cli.state import RUN_VARIABLE, run_id
from quarterdeck.settings.config import Config
from quarterdeck.settings.engine import PACKAGED, Task
from quarterdeck.settings.environment import Environment

EngineKind = Literal["vllm", "sim", "none"]


@dataclass(frozen=True, slots=True)
class Door:
    """One process that `up` starts and watches."""

    name: str
    argv: tuple[str, ...]
    environ: Mapping[str, str]
    health: str | None
    """A URL that answers below 500 once the process serves. None: asked in another way (Redis)."""
    start_s: float
    """How long it may take from its start to its first good health."""
    grace_s: float
    """How long it may take from SIGTERM to its end."""


@dataclass(frozen=True, slots=True)
class Doors:
    """The platform's processes. None: somebody else's, or not wanted."""

    redis: Door | None
    engine: Door | None
    worker: Door
    gateway: Door


@dataclass(frozen=True, slots=True)
class Interpreters:
    """The two environments' pythons."""

    core: Path
    engine: Path


def variables(environment: Environment, config_file: Path, kind: EngineKind) -> dict[str, str]:
    """What every process of the run finds in its environment: ours resolved, the user's kept."""
    engine_url = environment.engine_url if kind == "none" else f"http://127.0.0.1:{environment.engine_port}"
    ours = {
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
    if engine_url:
        ours["QUARTERDECK_ENGINE_URL"] = engine_url
    return {**environment.variables, **ours}


def plan(
    environment: Environment,
    config: Config,
    config_file: Path,
    kind: EngineKind,
    pythons: Interpreters,
    redis_argv: tuple[str, ...] | None,
) -> Doors:
    """The processes. `redis_argv` None: the user's own Redis is used (QUARTERDECK_REDIS_URL)."""
    environ = variables(environment, config_file, kind)
    local = "127.0.0.1" if environment.host in ("0.0.0.0", "::", "") else environment.host  # noqa: S104  # compared, not bound
    return Doors(
        redis=Door("redis", redis_argv, environ, None, start_s=60, grace_s=10) if redis_argv else None,
        engine=_engine(environment, config, kind, pythons, environ),
        worker=Door(
            "worker",
            (str(pythons.core), "-m", "quarterdeck.worker"),
            environ,
            f"http://{local}:{environment.worker_port}/healthz",
            start_s=60,
            grace_s=20,
        ),
        gateway=Door(
            "gateway",
            (str(pythons.core), "-m", "quarterdeck.gateway"),
            environ,
            f"http://{local}:{environment.port}/healthz",
            start_s=60,
            grace_s=config.gateway.drain_seconds + 10,
        ),
    )


def _engine(
    environment: Environment, config: Config, kind: EngineKind, pythons: Interpreters, environ: Mapping[str, str]
) -> Door | None:
    engines = {model.name: model.engine.task for model in config.models if model.engine is not None}
    if kind == "none" or not engines:
        return None
    health = f"http://127.0.0.1:{environment.engine_port}/endpoints"
    if kind == "sim":
        argv = (str(pythons.core), "-m", "quarterdeck.simulator", "--port", str(environment.engine_port))
        return Door("engine", (*argv, *_simulated(engines)), environ, health, start_s=60, grace_s=20)
    # Ray, not the model: the door answers once Ray is up, and says itself how far each model is.
    real = (str(pythons.engine), "-m", "quarterdeck.engine")
    return Door("engine", real, environ, health, start_s=300, grace_s=60)


def _simulated(tasks: Mapping[str, Task]) -> list[str]:
    """The simulator's options for models and what each is for."""
    generate = [name for name, task in tasks.items() if task == "generate"]
    embed = [name for name, task in tasks.items() if task == "embed"]
    if not generate:
        return ["--task", "embed", *(word for name in embed for word in ("--model", name))]
    words = ["--model", generate[0]]
    if generate[1:]:
        words += ["--more-models", *generate[1:]]
    if embed:
        words += ["--embedding-model", *embed]
    return words


def packaged_models(config: Config) -> list[str]:
    """Those to prepare before the engine starts."""
    return [m.engine.source.removeprefix(PACKAGED) for m in config.models if m.engine and m.engine.is_packaged]


def chat_models(config: Config) -> list[str]:
    """Those that answer a chat: the first of them ready makes the platform usable."""
    return [model.name for model in config.models if model.engine is None or model.engine.task == "generate"]


def ports(environment: Environment, doors: Doors) -> dict[str, tuple[str, int]]:
    """What must be free: variable → address."""
    wanted = {
        "QUARTERDECK_PORT": (environment.host, environment.port),
        "QUARTERDECK_WORKER_PORT": (environment.host, environment.worker_port),
    }
    if doors.engine:
        wanted["QUARTERDECK_ENGINE_PORT"] = ("127.0.0.1", environment.engine_port)
    return wanted
