"""The simulated engine's parts, made once and handed to the routes."""

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random
from typing import Any, Protocol

from quarterdeck.simulator.adapters import Adapters
from quarterdeck.simulator.config import AT_RUN_TIME, SimulatorConfig, check
from quarterdeck.simulator.errors import invalid, unknown_model
from quarterdeck.simulator.faults import FaultBook, parse
from quarterdeck.simulator.metrics import fake_metrics as fake
from quarterdeck.simulator.metrics.engine_metrics import Metrics
from quarterdeck.simulator.options import from_mapping
from quarterdeck.simulator.scheduling.block_pool import Blocks
from quarterdeck.simulator.scheduling.clock import Clock
from quarterdeck.simulator.scheduling.scheduler import Scheduler


@dataclass(frozen=True, slots=True)
class Served:
    """Who answers: the name that answers carry, and the `voice` that goes into the words' checksum."""

    name: str
    voice: str
    adapter: str | None


class Listener(Protocol):
    """The port, for the faults that close it. There is none in process."""

    def refuse(self, seconds: float) -> None:
        """Close the port for so long."""


class Engine:
    def __init__(self, config: SimulatorConfig, *, exit_process: Callable[[int], Any] = os._exit) -> None:
        check_values(config)
        self.config = config
        self.exit_process = exit_process
        self.listener: Listener | None = None
        self.url = config.advertise_url
        self.draining = False
        self.created = int(time.time())
        self.started = time.monotonic()
        self.load = 0
        self.clock = Clock()
        self.random = Random(config.seed)  # noqa: S311  (repeatable is what is asked for)
        self.blocks = Blocks(config.kv_cache_size, config.block_size) if config.enable_kvcache else None
        self.scheduler = Scheduler(lambda: self.config, self.blocks)
        self.adapters = Adapters(config.lora_modules, config.model)
        self.metrics = Metrics(config.max_model_len)
        self.faults = FaultBook(config.seed)

    @property
    def elapsed(self) -> float:
        return time.monotonic() - self.started

    @property
    def state(self) -> str:
        """The words of GET /endpoints."""
        if self.draining:
            return "draining"
        return "starting" if self.elapsed < self.config.startup_duration else "ready"

    def change(self, values: Mapping[str, Any]) -> None:
        """Change what may change at run time. Raises ValueError, and then nothing has changed."""
        for name in values:
            if name.replace("-", "_") not in AT_RUN_TIME:
                raise ValueError(f"'{name}' can't be changed at run time")
        config = from_mapping(values, self.config)
        check_values(config)
        self.config = config
        self.scheduler.advance()

    def serving(self, model: str | None, task: str) -> Served:
        """Who answers to the name; no name is the task's first model. Raises Refusal for a name we don't serve."""
        tasks = self.config.tasks
        if not model:
            name = next((name for name, each in tasks.items() if each in (task, "any")), self.config.names[0])
            return self.serving(name, task)
        if model in self.adapters:
            return Served(model, model, model)
        if model not in tasks:
            raise unknown_model(model)
        if task and tasks[model] not in (task, "any"):
            api = {"generate": "Chat Completions", "embed": "Embeddings"}[task]
            raise invalid(f"The model does not support {api} API", "model")
        if model in self.config.names:
            return Served(self.config.names[0], self.config.model, None)
        return Served(model, model, None)


def check_values(config: SimulatorConfig) -> None:
    """The checks that need more than the config's own module. Raises ValueError."""
    check(config)
    fake.check(config.fake_metrics)
    for name in config.failure_types:
        parse(name)
