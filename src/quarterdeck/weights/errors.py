"""Why weights can't be had."""

from typing import Literal

Code = Literal[
    "repository_not_found",
    "gated",
    "unauthorized",
    "revision_not_found",
    "not_a_model",
    "disk_too_small",
    "disk_full",
    "hub_unreachable",
    "offline",
    "damaged",
    "failed",
]
_PASSING = frozenset({"hub_unreachable", "disk_too_small", "disk_full", "damaged", "failed"})


class WeightsError(Exception):
    """The message is a sentence for the user: what is wrong, and what to do."""

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(message)
        self.code = code

    @property
    def is_permanent(self) -> bool:
        """Whether another attempt fails as well, until the configuration or a token changes."""
        return self.code not in _PASSING
