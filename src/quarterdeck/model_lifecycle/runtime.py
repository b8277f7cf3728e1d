"""What the reconciler needs of that which runs models: Ray Serve (`engine/serve_runtime.py`), or the simulator."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

from quarterdeck.model_lifecycle.desired import Desired
from quarterdeck.model_lifecycle.gpus import GpuNeed, Gpus
from quarterdeck.model_lifecycle.memory import Need
from quarterdeck.model_lifecycle.status import Phase


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a start is."""

    phase: Phase
    detail: str = ""
    """Empty: the phase in words."""
    fraction: float | None = None
    seconds_left: float | None = None
    """Of this phase."""


Report = Callable[[Progress], None]


class StartFailure(Exception):
    """A model could not be started; the message is one line for its user."""

    def __init__(self, reason: str, message: str, *, is_permanent: bool = False) -> None:
        """`reason`: for programs, see `ModelStatus.reason`. `is_permanent`: only a changed configuration helps."""
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.is_permanent = is_permanent


class RuntimeUnavailableError(Exception):
    """The runtime does not answer at the moment."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A model whose files are in place."""

    source: str
    """A folder, or what the engine loads by itself."""
    need: Need | None = None
    """None: not known, or the engine sees to it."""
    stored_bytes: int = 0
    version: str = ""
    """A fingerprint of its files."""
    revision: str | None = None
    notes: tuple[str, ...] = ()
    gpu_need: GpuNeed | None = None
    """None: it needs no GPU, or it is not known."""


@dataclass(frozen=True, slots=True)
class Observed:
    """The processes of one version of a model."""

    state: Literal["starting", "ready", "failed"]
    progress: Progress | None = None
    detail: str = ""
    """Why it failed."""
    memory_bytes: int | None = None
    gpu_memory_bytes: int | None = None
    """None: it has none, or it is not known."""
    log: str | None = field(default=None)


class Runtime(Protocol):
    """Starts and ends processes of models, by the name of their app."""

    @property
    def max_starting(self) -> int | None:
        """How many models may start at a time. None: any number."""
        ...

    def observed(self) -> Mapping[str, Observed]:
        """The apps of this door, as they were seen last."""
        ...

    def free_bytes(self) -> int | None:
        """Free memory. None: not known, or not this machine's."""
        ...

    def gpus(self) -> Gpus | None:
        """The GPUs that engines can get. None: not known."""
        ...

    async def prepare(self, model: Desired, report: Report) -> Prepared:
        """Fetch the model's files. May take hours; cancelled where the model is not wanted. Raises StartFailure."""
        ...

    async def start(self, app: str, model: Desired, prepared: Prepared) -> None:
        """Have it started, without waiting until it serves. Raises StartFailure."""
        ...

    async def stop(self, app: str) -> None:
        """End its processes, and return when they have ended. Idempotent. Raises RuntimeUnavailableError."""
        ...

    async def active_requests(self, app: str) -> int:
        """Requests in flight there."""
        ...
