"""The bounds of models whose context is not configured, from what their endpoints state."""

import msgspec

from quarterdeck.inference.bounds import Bounds, widest
from quarterdeck.inference.endpoints.endpoint import Endpoints
from quarterdeck.inference.routing.directory import Route, ServedModel

KEPT_SECONDS = 1.0
MAX_ROUTES = 4096


class LearnedBounds:
    """Computed at most once a second for each route, and not for those whose context is configured."""

    def __init__(self, endpoints: Endpoints) -> None:
        self._endpoints = endpoints
        self._found: dict[str, tuple[Route, Bounds, float]] = {}

    def of(self, route: Route, now: float) -> Bounds:
        """The bounds of a request that any of the route's models may answer."""
        found = self._found.get(route.name)
        if found is not None and found[0] is route and now < found[2]:
            return found[1]
        if len(self._found) >= MAX_ROUTES:
            self._found.clear()
        bounds = widest([self._of_model(each) for each in route.models])
        self._found[route.name] = (route, bounds, now + KEPT_SECONDS)
        return bounds

    def _of_model(self, served: ServedModel) -> Bounds:
        bounds = served.bounds
        if bounds.context is not None:
            return bounds
        endpoints = self._endpoints.serving(served.name)
        contexts = [each.context for each in endpoints if each.context is not None]
        if not contexts or len(contexts) < len(endpoints):
            return bounds
        context = max(contexts)
        # As if it were configured. `is_sent` without a context: a `max_output_tokens` is configured.
        output = min(bounds.output, context) if bounds.is_sent else context
        return msgspec.structs.replace(bounds, context=context, output=output)
