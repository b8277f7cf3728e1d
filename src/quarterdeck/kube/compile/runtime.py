"""What the operator knows of a Model's engine, as far as gateways must know it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from quarterdeck.kube.compiled import AdapterEntry, EngineState


@dataclass(frozen=True, slots=True)
class Canary:
    """Two revisions of a model, of which the candidate gets some requests."""

    stable: str
    """Revision that is in use."""
    candidate: str
    """Revision that is tried."""
    weight: float
    """Percentage of requests that the candidate gets, 0 to 100."""


@dataclass(frozen=True, slots=True)
class Runtime:
    """What gateways must know of a Model's engine beyond its spec."""

    state: EngineState = "Starting"
    detail: str = ""
    """Why it does not serve, in a sentence for a client's error message."""
    canary: Canary | None = None
    """Set while both revisions have ready replicas."""
    adapters: Mapping[str, AdapterEntry] = field(default_factory=dict)
    """Adapters as the engine has them, by the ModelAdapter's name. One that is missing is loaded nowhere."""
    failed_adapters: Mapping[str, str] = field(default_factory=dict)
    """Adapters that no replica can load, by the ModelAdapter's name, with the reason."""
    engine_name: str | None = None
    """The name by which the engine serves the model. None: its public name."""
