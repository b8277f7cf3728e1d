"""Room for requests of batches: an engine is sent few of them while it runs other requests.

An engine's steps take longer the more requests it runs. So a batch may fill an engine that has nothing else to do
(`batches.idle_share`), and takes few of its places while it has (`batches.busy_share`). What is refused is not
recorded: the worker sends it again.
"""

from collections.abc import Sequence

from quarterdeck.errors import RateLimitError
from quarterdeck.inference.endpoints.endpoint import Endpoint, Endpoints
from quarterdeck.inference.routing.directory import ServedModel
from quarterdeck.settings.batches import BatchesConfig

QUIET_SECONDS = 10.0
"""An engine counts as busy with other requests for so long after the last one began: another may follow."""


def check_idle(endpoints: Endpoints, models: Sequence[ServedModel], config: BatchesConfig, now: float) -> None:
    """Raises RateLimitError where no endpoint of the models has room. Models without one are left to the router, which
    says why. `now`: Unix seconds."""
    found = [each for served in models for each in endpoints.serving(served.name)]
    if found and not any(has_room(each, config, now) for each in found):
        raise RateLimitError(
            "The model has no idle capacity for requests of batches at the moment.",
            code="no_idle_capacity",
            retry_after=1,
        )


def has_room(endpoint: Endpoint, config: BatchesConfig, now: float) -> bool:
    load, most = endpoint.load, endpoint.spec.max_running
    if load.requests + 1 > max(1.0, config.idle_share * most):
        return False
    is_busy = load.requests > load.of_batches or now - load.last_other < QUIET_SECONDS
    return not is_busy or load.of_batches + 1 <= max(1.0, config.busy_share * most)
