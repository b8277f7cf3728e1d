"""What an endpoint's failures say of it: when it is left alone, for how long, and who may try it again.

Three failures in a row, or half of the last calls, and it rests: ten seconds at first, then twice as long each time.
When the rest is over it is half-open: one request at a time may go there, the first success closes the matter. Errors
never put more than half of a model's endpoints to rest while others answer, lest the rest be overrun; one that can't be
reached at all carries nobody's load and rests in any case.
"""

from collections.abc import Sequence

from quarterdeck.inference.endpoints.sources import Endpoint

FAILURES_TO_REST = 3
REST_SECONDS = 10.0
LONGEST_REST_SECONDS = 300.0
PROBE_SECONDS = 10.0
"""How long a half-open endpoint's one request keeps others away. A time and not a flag: no caller who leaves in the
middle can leave it set."""
AVOIDED_SECONDS = 5.0
"""How long one that failed counts as fuller than it looks."""
LEARNING_RATE = 0.1
"""The weight of the last call in the share of failures: some twenty calls are remembered."""
WORST_SHARE = 0.5
FEWEST_CALLS = 10
"""Before the share says anything."""


def is_offered(endpoint: Endpoint, now: float) -> bool:
    """Whether a request may go there while others are there."""
    if not endpoint.is_alive:
        return False
    return not endpoint.rests_until or (endpoint.rests_until <= now and endpoint.probed_until <= now)


def begin_probe(endpoint: Endpoint, now: float) -> None:
    """A request goes to one that has rested."""
    endpoint.probed_until = now + PROBE_SECONDS


def report_failure(endpoint: Endpoint, now: float, others: Sequence[Endpoint] = (), *, reached: bool = True) -> None:
    """A call failed by the endpoint's fault. `others`: all that are ready for the model, itself among them or not.
    `now` is the loop's time."""
    endpoint.failures += 1
    endpoint.avoided_until = now + AVOIDED_SECONDS
    endpoint.calls += 1
    endpoint.failure_share += LEARNING_RATE * (1.0 - endpoint.failure_share)
    if endpoint.rests_until > now:  # it rests already; this one had begun before
        return
    share_is_bad = endpoint.calls >= FEWEST_CALLS and endpoint.failure_share >= WORST_SHARE
    is_half_open = endpoint.rests_until > 0.0
    if not (is_half_open or share_is_bad or endpoint.failures >= FAILURES_TO_REST):
        return
    if reached and not is_half_open and not _may_rest(endpoint, others):
        return
    if now - endpoint.rests_until > LONGEST_REST_SECONDS:  # long ago
        endpoint.rests = 0
    endpoint.rests_until = now + min(REST_SECONDS * 2.0 ** min(endpoint.rests, 10), LONGEST_REST_SECONDS)
    endpoint.rests += 1
    endpoint.ejections += 1
    endpoint.probed_until = 0.0


def report_success(endpoint: Endpoint) -> None:
    """A call was answered. While it rests, only the answer to one who tried it says that it is well again."""
    endpoint.calls += 1
    if endpoint.failures:
        endpoint.failures = 0
    if endpoint.failure_share:
        endpoint.failure_share *= 1.0 - LEARNING_RATE
    if endpoint.probed_until:
        endpoint.rests_until = endpoint.failure_share = endpoint.probed_until = 0.0
        endpoint.calls = 0


def _may_rest(endpoint: Endpoint, others: Sequence[Endpoint]) -> bool:
    siblings = [other for other in others if other is not endpoint]
    resting = sum(1 for other in siblings if other.rests_until)
    return resting == len(siblings) or 2 * (resting + 1) <= len(siblings) + 1
