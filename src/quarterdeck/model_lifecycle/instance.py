"""A version of a model on this machine, and the failure of one. Changed by the reconciler only."""

import asyncio
from dataclasses import dataclass, field

from quarterdeck.model_lifecycle.desired import Desired
from quarterdeck.model_lifecycle.plan import InstanceState, Seen
from quarterdeck.model_lifecycle.runtime import Prepared, Progress, StartFailure

FIRST_RETRY_SECONDS = 15.0
MAX_RETRY_SECONDS = 600.0
"""Between two starts; doubled after each failure. Ten minutes: a cause outside of the configuration is often gone by
then, and a start keeps the cores busy for a minute."""
NO_ROOM_RETRY_SECONDS = 10.0
"""Between two looks at the free memory, which cost nothing."""


@dataclass(slots=True)
class Instance:
    """The processes of a model with one configuration."""

    app: str
    model: Desired
    began: float
    """All times are the reconciler's clock."""
    loading_since: float = 0.0
    """When its processes were started."""
    has_processes: bool = False
    """Whether there may be processes."""
    is_started: bool = False
    """Whether the runtime has been asked for them, and lists them."""
    is_ready: bool = False
    """Whether it has served."""
    prepared: Prepared | None = None
    progress: Progress = field(default_factory=lambda: Progress("preparing"))
    missing_since: float | None = None
    starting: asyncio.Task[None] | None = None
    draining: asyncio.Task[None] | None = None
    stopping: asyncio.Task[None] | None = None

    def __post_init__(self) -> None:
        self.loading_since = self.loading_since or self.began

    @property
    def state(self) -> InstanceState:
        if self.stopping is not None:
            return "stopping"
        return "ready" if self.is_ready else "starting"

    @property
    def is_leaving(self) -> bool:
        """Whether it gets no further requests."""
        return self.stopping is not None or self.draining is not None

    def seen(self) -> Seen:
        return Seen(self.app, self.model.name, self.model.digest, self.state)

    def tasks(self) -> list[asyncio.Task[None]]:
        return [task for task in (self.starting, self.draining, self.stopping) if task is not None]

    def cancel_drain(self) -> None:
        if self.draining is not None:
            self.draining.cancel()
            self.draining = None


@dataclass(slots=True)
class Failure:
    """Why the last start of a model failed, and when the next one is due."""

    digest: str
    reason: str
    message: str
    due: float
    delay: float
    needed_bytes: int | None = None

    @classmethod
    def after(cls, known: "Failure | None", instance: Instance, failure: StartFailure, now: float) -> "Failure":
        if failure.reason == "does_not_fit":
            delay = NO_ROOM_RETRY_SECONDS
        elif failure.is_permanent:
            delay = MAX_RETRY_SECONDS
        elif known is not None and known.digest == instance.model.digest and known.reason != "does_not_fit":
            delay = min(MAX_RETRY_SECONDS, known.delay * 2)
        else:
            delay = FIRST_RETRY_SECONDS
        need = instance.prepared.need if instance.prepared is not None else None
        return cls(
            instance.model.digest, failure.reason, failure.message, now + delay, delay, need.total if need else None
        )
