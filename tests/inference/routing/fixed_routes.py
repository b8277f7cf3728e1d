"""A router over fixed routes and endpoints, and where a request goes while its attempts fail."""

from collections.abc import Sequence
from random import Random
from typing import Any

from tests.inference.making import CHAT, an_endpoint, as_json

from quarterdeck.errors import (
    APIError,
    BadRequestError,
)
from quarterdeck.inference.call import Operation
from quarterdeck.inference.endpoints.endpoint import Endpoint
from quarterdeck.inference.endpoints.sources import indexed
from quarterdeck.inference.request import decode
from quarterdeck.inference.routing.directory import Directory
from quarterdeck.inference.routing.router import Router
from quarterdeck.inference.routing.selection import Selection
from quarterdeck.model_lifecycle.status import ModelStatus
from quarterdeck.settings.loading import parse

MODELS = """
models:
  - {name: big, endpoints: [{url: "http://unused"}]}
  - {name: small, endpoints: [{url: "http://unused"}]}
  - {name: far, endpoints: [{url: "http://unused"}]}
"""
CANARY = "routes: [{name: r, targets: [{model: big, weight: 9}, {model: small, weight: 1}]}]"
BACKED = """
gateway: {retries: 1}
routes:
  - name: r
    targets: [{model: big}]
    fallbacks:
      - {model: small, after: [context_length, timeout]}
      - {model: far, after: [error, queue], contains: "out of paper"}
"""
LONG = BadRequestError("too long", code="context_length_exceeded")


class Listed:
    """Endpoints, three of each model unless said otherwise."""

    def __init__(self, **counts: int) -> None:
        each = {"big": 3, "small": 3, "far": 3} | counts
        self.endpoints = [
            an_endpoint(f"{model}#{number}", model=model) for model, count in each.items() for number in range(count)
        ]
        self.index = indexed(self.endpoints)

    def all(self) -> Sequence[Endpoint]:
        return self.endpoints

    def status(self, name: str) -> ModelStatus | None:
        return None

    def unavailable(self, name: str) -> str:
        return ""

    def serving(self, name: str) -> Sequence[Endpoint]:
        return self.index.get(name, ())


class Routing:
    """A router over `MODELS` and the routes of `text`."""

    def __init__(self, text: str, **counts: int) -> None:
        self.directory = Directory.of(parse(MODELS + text))
        self.listed = Listed(**counts)
        self.router = Router(self.listed, Random(1).random)

    def begin(self, name: str = "r", tokens: int = 100, **asked: Any) -> Selection:
        body = as_json({**CHAT, **asked})
        route = self.directory.routes[name]
        return self.router.select(route, decode(Operation.CHAT, body), tokens=tokens, now=0.0)

    def eject(self, model: str) -> None:
        """All endpoints of the model."""
        for endpoint in self.listed.serving(model):
            endpoint.breaker.open_until = 100.0


def go(selection: Selection, *failures: APIError) -> list[str]:
    """The endpoints tried while the attempts fail like this, in order."""
    went = []
    for failure in failures:
        choice = selection.next(0.0)
        if choice is None:
            break
        went.append(choice.endpoint.id)
        if not selection.failed(choice, failure, 0.0):
            break
    else:
        choice = selection.next(0.0)
        if choice is not None:
            went.append(choice.endpoint.id)
    return went
