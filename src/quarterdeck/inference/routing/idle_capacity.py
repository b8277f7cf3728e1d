"""Room for requests of batches: they are sent to an engine only while it has little to do.

An engine's steps take longer the more requests it runs, so a batch may fill a share of its places
(`batches.idle_share`). What is refused is not recorded: the worker sends it again.
"""

from collections.abc import Sequence

from quarterdeck.errors import RateLimitError
from quarterdeck.inference.endpoints.endpoint import Endpoints
from quarterdeck.inference.routing.directory import ServedModel


def check_idle(endpoints: Endpoints, models: Sequence[ServedModel], share: float) -> None:
    """Raises RateLimitError where all endpoints of the models have more to do. Models without one are left to the
    router, which says why."""
    found = [each for served in models for each in endpoints.serving(served.name)]
    if found and not any(each.load.requests < max(1.0, share * each.spec.max_running) for each in found):
        raise RateLimitError(
            "The model has no idle capacity for requests of batches at the moment.",
            code="no_idle_capacity",
            retry_after=1,
        )
