"""The state behind the simulator's control port: the reconciler, and what it lists."""

import logging
from collections.abc import Sequence
from typing import Any

from quarterdeck.model_lifecycle.desired import desired_models
from quarterdeck.model_lifecycle.instance import Instance
from quarterdeck.model_lifecycle.reconciler import Reconciler, Timing
from quarterdeck.model_lifecycle.start_times import StartTimes
from quarterdeck.settings.models import ModelConfig
from quarterdeck.simulator.errors import VLLMError
from quarterdeck.simulator.fleet.engine_options import adapter_sources
from quarterdeck.simulator.fleet.runtime import SimulatedRuntime

log = logging.getLogger(__name__)


class FleetDoor:
    """Built once, in `__main__`."""

    def __init__(self, runtime: SimulatedRuntime, times: StartTimes, *, drain_seconds: float) -> None:
        self.runtime = runtime
        self.reconciler = Reconciler(runtime, times, timing=Timing(drain=drain_seconds))
        self.is_draining = False
        runtime.on_ready = lambda app: self._load_adapters()

    def follow(self, models: Sequence[ModelConfig]) -> None:
        """Take a new configuration."""
        self.reconciler.follow(desired_models(models))
        self._load_adapters()

    def listing(self) -> dict[str, Any]:
        """The response of `GET /endpoints`."""
        statuses = self.reconciler.statuses()
        words = {each.name: each for each in statuses}
        rows: list[dict[str, Any]] = []
        counted: dict[str, int] = {}
        for instance in self.reconciler.instances:
            name = instance.model.name
            counted[name] = counted.get(name, 0) + 1
            rows.append(self._row(instance, counted[name], words[name].detail))
        for name, model in self.reconciler.desired.items():
            if name not in counted and not model.is_stopped:
                status = words[name]
                detail = f"failed: {status.detail}" if status.state == "failed" else status.detail
                fields = {"id": name, "model": name, "url": "", "state": "starting", "task": model.engine.task}
                rows.append({**fields, "adapters": {}, "max_running": 1, "detail": detail})
        return {"endpoints": rows, "models": [each.as_dict() for each in statuses]}

    def _row(self, instance: Instance, number: int, detail: str) -> dict[str, Any]:
        engine = self.runtime.engines().get(instance.app)
        is_leaving = instance.is_leaving or self.is_draining
        state = "starting" if not instance.is_ready or engine is None else "draining" if is_leaving else "ready"
        return {
            "id": f"{instance.model.name}#{number}" if instance.is_ready else instance.model.name,
            "model": instance.model.name,
            "adapters": {each.name.partition("@")[0]: each.name for each in engine.adapters.all()} if engine else {},
            "url": engine.url if engine is not None and state != "starting" else "",
            "state": state,
            "max_running": engine.config.max_num_seqs if engine is not None else 1,
            "task": instance.model.engine.task,
            "detail": detail or ("simulated" if state == "ready" else ""),
        }

    def _load_adapters(self) -> None:
        """Give each running engine the adapters of the configuration, and no others that it named before."""
        engines = self.runtime.engines()
        for instance in self.reconciler.instances:
            engine = engines.get(instance.app)
            if engine is None:
                continue
            wanted = adapter_sources(instance.model)
            loaded = {each.name: each.path for each in engine.adapters.all()}
            for name in loaded.keys() - wanted.keys():
                engine.adapters.unload(name)
            for name in wanted.keys() - loaded.keys():
                try:
                    engine.adapters.load(name, wanted[name])
                except VLLMError as error:
                    log.error("can't load adapter %s of %s: %s", name, instance.model.name, error)
