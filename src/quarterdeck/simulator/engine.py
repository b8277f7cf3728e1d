"""The simulated engine: its parts, created once and passed to the routes, and its state."""

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random
from typing import Any, Protocol

from quarterdeck.simulator.adapters import Adapters
from quarterdeck.simulator.config import AT_RUN_TIME, SimulatorConfig, validate
from quarterdeck.simulator.errors import invalid_request, model_not_found
from quarterdeck.simulator.faults import FaultInjector, parse
from quarterdeck.simulator.metrics import fake_metrics
from quarterdeck.simulator.metrics.engine_metrics import EngineMetrics
from quarterdeck.simulator.options import from_mapping
from quarterdeck.simulator.scheduling.block_pool import BlockPool
from quarterdeck.simulator.scheduling.clock import Clock
from quarterdeck.simulator.scheduling.scheduler import Scheduler


@dataclass(frozen=True, slots=True)
class HostedModel:
    """A model to run: the name in responses, the weights that determine its text, and its adapter."""

    name: str
    weights: str
    adapter: str | None


class Listener(Protocol):
    """The listening port, which faults can close. None when the app runs in process."""

    def refuse(self, seconds: float) -> None:
        """Close the port for `seconds`."""


class Engine:
    def __init__(
        self, config: SimulatorConfig, *, exit_process: Callable[[int], Any] = os._exit, clock: Clock | None = None
    ) -> None:
        validate_all(config)
        self.config = config
        self.exit_process = exit_process
        self.listener: Listener | None = None
        self.url = config.advertise_url
        self.draining = False
        self.created = int(time.time())
        self.load = 0
        self.clock = clock or Clock()
        self.started = self.clock.now()
        self.random = Random(config.seed)  # noqa: S311  (a seed must repeat)
        self.blocks = BlockPool(config.kv_cache_size, config.block_size) if config.enable_kvcache else None
        self.scheduler = Scheduler(lambda: self.config, self.blocks)
        self.adapters = Adapters(config.lora_modules, config.model, config.max_lora_rank)
        self.metrics = EngineMetrics(config.max_model_len)
        self.faults = FaultInjector(config.seed)

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return self.clock.now() - self.started

    @property
    def state(self) -> str:
        """The state in GET /endpoints: starting, ready or draining."""
        if self.draining:
            return "draining"
        return "starting" if self.elapsed < self.config.startup_duration else "ready"

    def change(self, values: Mapping[str, Any]) -> None:
        """Apply options that may change at run time. Raises ValueError and changes nothing if one is invalid."""
        for name in values:
            if name.replace("-", "_") not in AT_RUN_TIME:
                raise ValueError(f"'{name}' can't be changed at run time")
        config = from_mapping(values, self.config)
        validate_all(config)
        self.config = config
        self.scheduler.advance()

    def hosted_model(self, model: str | None, task: str) -> HostedModel:
        """Resolve a model name; without one, the task's first model. Raises VLLMError for an unknown name."""
        tasks = self.config.tasks
        if not model:
            name = next((name for name, each in tasks.items() if each in (task, "any")), self.config.names[0])
            return self.hosted_model(name, task)
        if model in self.adapters:
            try:
                return HostedModel(model, self.adapters.weights(model), model)
            except FileNotFoundError:
                self.exit_process(1)
        if model not in tasks:
            raise model_not_found(model)
        if task and tasks[model] not in (task, "any"):
            api = {"generate": "Chat Completions", "embed": "Embeddings", "media": "Audio or Images"}[task]
            raise invalid_request(f"The model does not support {api} API", "model")
        if model in self.config.names:
            return HostedModel(self.config.names[0], self.config.model, None)
        return HostedModel(model, model, None)


def validate_all(config: SimulatorConfig) -> None:
    """Validate the configuration with metric and fault names. Raises ValueError."""
    validate(config)
    fake_metrics.validate(config.fake_metrics)
    for name in config.failure_types:
        parse(name)
