"""What a door says of a model, beside its endpoints: `models` in the response of `GET /endpoints`.

The gateway reads the same class: `inference/endpoints/sources.py`.
"""

from collections.abc import Mapping
from typing import Literal

import msgspec

Phase = Literal[
    "waiting",
    "downloading",
    "preparing",
    "loading",
    "compiling",
    "warming_up",
    "ready",
    "updating",
    "removing",
    "stopped",
    "failed",
]
"""waiting: for Ray, or for another model that starts. updating: it serves, and its new configuration is being started.
failed: it does not serve; `reason` and `detail` say why, and it is tried again."""

STARTING: frozenset[Phase] = frozenset(("waiting", "downloading", "preparing", "loading", "compiling", "warming_up"))

WORDS: Mapping[Phase, str] = {
    "waiting": "waiting to be started",
    "downloading": "downloading",
    "preparing": "preparing its files",
    "loading": "loading weights",
    "compiling": "compiling",
    "warming_up": "warming up",
    "ready": "",
    "updating": "starting its new configuration",
    "removing": "finishing its requests",
    "stopped": "stopped",
    "failed": "failed",
}
"""The detail of a phase that has no other."""


class ModelStatus(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A model as a whole. `detail` is a sentence for people."""

    name: str
    state: Phase
    detail: str = ""
    reason: str = ""
    """Why it failed, for programs: `does_not_fit`, `start_timeout`, `invalid`, `refused`, `engine_failed`, or the code
    of an error of `quarterdeck.weights`. Set on a model that serves: its change could not be applied."""
    progress: float | None = None
    """Of a download, 0 to 1."""
    seconds_left: float | None = None
    """Until it is ready, estimated from earlier starts."""
    retry_seconds: float | None = None
    """Until a failed one is tried again."""
    memory_bytes: int | None = None
    """Resident on the host, of all its processes."""
    gpu_memory_bytes: int | None = None
    """On GPUs, of all its processes, where their driver says it."""
    needed_bytes: int | None = None
    """Its weights, KV cache and overhead, as computed before its start."""
    folder: str | None = None
    """Where its files are."""
    revision: str | None = None
    log: str | None = None
    """The file with its engine's output."""
    since: float = 0.0
    """Unix time at which it came into this state."""

    @property
    def is_starting(self) -> bool:
        return self.state in STARTING

    def as_dict(self) -> dict[str, object]:
        return dict(msgspec.to_builtins(self))


def about(seconds: float) -> str:
    """An estimate in words, coarser the longer it is: `about 40 s`, `about 3 min`."""
    if seconds < 10:
        return "a few seconds"
    if seconds < 100:
        return f"about {round(seconds / 5) * 5} s"
    return f"about {max(2, round(seconds / 60))} min"
