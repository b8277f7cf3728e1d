"""Keeps what the scaling rule needs to remember of each Model: its demand, when it was last used, recent decisions."""

import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from quarterdeck.kube.resources.model import Model
from quarterdeck.operator.scaling import Decision, Demand, Situation, decide, wanted


@dataclass(slots=True)
class _Memory:
    used_at: float
    demand: Demand = field(default_factory=Demand)
    wants: deque[tuple[float, int]] = field(default_factory=deque)


class Autoscaler:
    """Demand by the object names of Models. `down_seconds`: how long fewer replicas must have been enough."""

    def __init__(self, down_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._down_seconds, self._clock = down_seconds, clock
        self._models: dict[str, _Memory] = {}

    def observe(self, demands: Mapping[str, Demand], models: Mapping[str, Model]) -> None:
        """Take the demand of every Model at this moment."""
        now = self._clock()
        for name, model in models.items():
            memory = self._memory(name, now)
            memory.demand = demands.get(name, Demand())
            if memory.demand.total > 0:
                memory.used_at = now
            memory.wants.append((now, wanted(model.spec.scaling, memory.demand)))
            while memory.wants and memory.wants[0][0] < now - self._down_seconds:
                memory.wants.popleft()
        for name in self._models.keys() - models.keys():
            del self._models[name]

    def decide(self, model: Model, *, current: int | None, ready: int) -> Decision:
        """Decide for one Model, whose backend is asked for `current` replicas and has `ready` ones."""
        now = self._clock()
        memory = self._memory(model.name, now)
        if ready == 0:
            memory.used_at = max(memory.used_at, now)  # idle time begins when the engine is ready
        return decide(
            Situation(
                scaling=model.spec.scaling,
                suspended=model.spec.suspend,
                current=current,
                ready=ready,
                was_suspended=model.status.state == "Suspended",
                demand=memory.demand,
                idle_seconds=now - memory.used_at,
                recent_wants=[want for _, want in memory.wants],
            )
        )

    def _memory(self, name: str, now: float) -> _Memory:
        return self._models.setdefault(name, _Memory(used_at=now))
