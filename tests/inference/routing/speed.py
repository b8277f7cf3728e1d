"""Measures routing decisions in microseconds of CPU: `.envs/core/bin/python tests/inference/routing/speed.py`."""

import time
import timeit

from quarterdeck.inference.call import Operation
from quarterdeck.inference.endpoints.registry import EndpointRegistry
from quarterdeck.inference.endpoints.sources import StaticEndpoints
from quarterdeck.inference.request import decode
from quarterdeck.inference.routing.directory import Directory
from quarterdeck.inference.routing.router import Router
from quarterdeck.settings.live import Live
from quarterdeck.settings.loading import parse

ROUNDS, EACH = 7, 5000
ENDPOINTS = (1, 4, 16, 100, 1000)
SHORT, LONG = 100, 400_000


def microseconds(policy: str, endpoints: int, *, models: int = 1, routes: int = 0, characters: int = SHORT) -> float:
    """One decision, from `select` to the end of the endpoint's load."""
    lines = ["models:"]
    for model in range(models):
        urls = ", ".join(f'{{url: "http://h{model}:{port + 1}"}}' for port in range(1 if model else endpoints))
        lines.append(f"  - {{name: m{model}, routing: {{policy: {policy}}}, endpoints: [{urls}]}}")
    if routes:
        lines.append("routes:")
    for route in range(routes):
        lines.append(
            f"  - {{name: r{route}, targets: [{{model: m0, weight: 9}}, {{model: m1}}], fallbacks: [{{model: m2}}]}}"
        )
    config = parse("\n".join(lines))
    directory = Directory.of(config)
    router = Router(EndpointRegistry([StaticEndpoints(Live(config), {})]))
    body = b'{"model":"m0","messages":[{"role":"user","content":"' + b"x" * characters + b'"}]}'
    request = decode(Operation.CHAT, body)
    name = "r0" if routes else "m0"

    def choose() -> None:
        route = directory.routes[name]
        selection = router.select(route, request, tokens=300, now=1.0)
        choice = selection.next(1.0)
        if choice is not None:
            choice.endpoint.load.begin(300)
            selection.succeeded(choice)
            choice.endpoint.load.end(300)

    return min(timeit.repeat(choose, number=EACH, repeat=ROUNDS, timer=time.process_time)) / EACH * 1e6


def main() -> None:
    print("| policy | " + " | ".join(f"{count} endpoints" for count in ENDPOINTS) + " |")
    print("|---|" + "---:|" * len(ENDPOINTS))
    for policy in ("least_load", "power_of_two", "weighted", "prefix"):
        found = [microseconds(policy, count) for count in ENDPOINTS]
        print(f"| `{policy}` | " + " | ".join(f"{each:.1f}" for each in found) + " |")
    print()
    print(f"300 models, 4 endpoints: {microseconds('least_load', 4, models=300):.1f} µs")
    for routes in (1, 300):
        cost = microseconds("least_load", 4, models=3, routes=routes)
        print(f"a canary with a fallback, {routes} routes: {cost:.1f} µs")
    print(f"`prefix`, 400 KB of prompt, 4 endpoints: {microseconds('prefix', 4, characters=LONG):.1f} µs")


if __name__ == "__main__":
    main()
