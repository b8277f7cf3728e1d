"""Which endpoint answers next. Pure: endpoints and the time in, one endpoint out."""

from collections.abc import Collection, Sequence

from quarterdeck.inference.endpoints import Endpoint


def pick(endpoints: Sequence[Endpoint], name: str, *, now: float, avoid: Collection[Endpoint] = ()) -> Endpoint | None:
    """The least loaded endpoint that is ready for `name`; one that rests only where nobody else is there.

    Load is requests of this gateway under way, by how many the endpoint runs at once. Endpoints in `avoid` were tried.
    """
    best: Endpoint | None = None
    best_rank = (True, 0.0)
    for endpoint in endpoints:
        if endpoint.state != "ready" or not endpoint.serves(name) or endpoint in avoid:
            continue
        rank = (endpoint.rests_until > now, endpoint.in_flight / endpoint.max_running)
        if best is None or rank < best_rank:
            best, best_rank = endpoint, rank
    return best
