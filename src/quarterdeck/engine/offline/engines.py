"""Which engines an offline run starts: of the model that its lines name, as quarterdeck.yaml says."""

import asyncio
import os
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from quarterdeck.engine.machine import Machine
from quarterdeck.engine.offline.engine_server import ServerCommand, vllm_words
from quarterdeck.engine.profile import make_profile, max_running
from quarterdeck.engine.sources import Sources
from quarterdeck.model_lifecycle.desired import Desired
from quarterdeck.model_lifecycle.kv_cache import read_kv_shape
from quarterdeck.model_lifecycle.runtime import Progress, StartFailure
from quarterdeck.settings.engine import EngineConfig
from quarterdeck.settings.models import ModelConfig
from quarterdeck.weights.downloads import Downloads

ENDPOINTS = {"/v1/chat/completions": "generate", "/v1/completions": "generate", "/v1/embeddings": "embed"}
"""Endpoints of engines, and the task of their models."""


class EngineChoiceError(Exception):
    """No engine can execute the lines; the message says why."""


@dataclass(frozen=True, slots=True)
class Engines:
    command: ServerCommand
    replicas: int
    requests: int
    """That one engine executes at once."""
    gpus: int
    """Of one engine."""


def find_model(models: Collection[ModelConfig], name: str, endpoint: str) -> tuple[ModelConfig, EngineConfig]:
    """The model that has this name or alias, or an adapter of this name, and its engine. Raises EngineChoiceError."""
    for model in models:
        engine = model.engine
        if engine is None or name not in (model.name, *model.aliases, *(each.name for each in engine.adapters)):
            continue
        if ENDPOINTS.get(endpoint) != engine.task:
            raise EngineChoiceError(f"the model '{name}' does not serve {endpoint}")
        return model, engine
    known = ", ".join(sorted(each.name for each in models if each.engine is not None)) or "none"
    raise EngineChoiceError(f"quarterdeck.yaml has no engine for the model '{name}'. It has engines for: {known}")


def choose(
    kind: Literal["vllm", "sim"],
    model: ModelConfig,
    engine: EngineConfig,
    name: str,
    machine: Machine,
    *,
    base: Path,
    cache: Path,
    thread_binding: str | None,
    replicas: int | None,
    simulator_words: Sequence[str],
    report: Callable[[str], None],
) -> Engines:
    """The engines for a model, whose files are put in place. `name`: that the lines have for it. Raises
    EngineChoiceError."""
    if kind == "sim":
        simulator = ("-m", "quarterdeck.simulator", "--model", name, "--task", engine.task, "--port", "{port}")
        return Engines(ServerCommand((*simulator, *simulator_words), {}), replicas or 1, max_running(engine), 0)
    sources = Sources(Downloads(os.environ, cache), base, cache, thread_binding)

    def on_progress(progress: Progress) -> None:
        report(f"{progress.phase} {progress.detail}".strip())

    try:
        prepared = asyncio.run(sources.prepare(Desired(model.name, engine), machine, on_progress))
    except StartFailure as error:
        raise EngineChoiceError(f"{model.name}: {error.message}") from error
    profile = make_profile(
        engine, machine, thread_binding=thread_binding, kv_shape=read_kv_shape(Path(prepared.source))
    )
    arguments = dict(profile.engine_kwargs)
    if template := arguments.get("chat_template"):
        arguments["chat_template"] = str(base / Path(template).expanduser())
    words = (*vllm_words(prepared.source, (model.name, *model.aliases), arguments), *_adapter_words(engine, name, base))
    gpus = engine.devices if profile.kind == "gpu" else 0
    count = replicas or (max(1, machine.gpus // gpus) if gpus else 1)
    return Engines(ServerCommand(words, profile.env), count, max_running(engine), gpus)


def _adapter_words(engine: EngineConfig, name: str, base: Path) -> tuple[str, ...]:
    for adapter in engine.adapters:
        if adapter.name == name:
            return ("--lora-modules", f"{name}={base / Path(adapter.source).expanduser()}")
    return ()
