"""The contexts of models, as their vLLM endpoints state them in `GET /v1/models` (`max_model_len`).

A budget holds the most that a request can cost, and an answer without a limit is limited by the context only. So it is
known without being configured. One task asks each endpoint when it appears and from time to time, as a server may be
restarted with another one; requests read what it found.
"""

import asyncio
from collections.abc import Callable, Sequence

import msgspec

from quarterdeck.inference.endpoints.endpoint import Endpoint
from quarterdeck.net.http_client import HttpClient
from quarterdeck.net.http_connection import Timeouts, UpstreamError
from quarterdeck.net.http_origin import request_head

TICK_SECONDS = 0.25
"""Between two looks for endpoints that are due."""
REFRESH_SECONDS = 60.0
RETRY_SECONDS = 5.0
TIMEOUTS = Timeouts(connect=2.0, first_byte=5.0, idle=5.0)
MAX_CONCURRENT = 8
MAX_BYTES = 1024 * 1024
"""Of an answer: a card for each model and adapter."""


class _Card(msgspec.Struct, frozen=True):
    id: str
    max_model_len: int | None = None


class _Cards(msgspec.Struct, frozen=True):
    data: list[_Card]


class ContextReader:
    """Keeps `Endpoint.context` up to date. `endpoints` is called at each tick: the set changes."""

    def __init__(
        self,
        endpoints: Callable[[], Sequence[Endpoint]],
        client: HttpClient,
        *,
        tick_seconds: float = TICK_SECONDS,
        retry_seconds: float = RETRY_SECONDS,
    ) -> None:
        self._endpoints = endpoints
        self._client = client
        self._tick_seconds = tick_seconds
        self._retry_seconds = retry_seconds
        self._due: dict[Endpoint, float] = {}
        """The loop's time of the next question."""

    async def run(self) -> None:
        """Read until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await self.read_due(loop.time())
            await asyncio.sleep(self._tick_seconds)

    async def read_due(self, now: float) -> None:
        """Ask the endpoints that are due, a few at a time."""
        asked = [each for each in self._endpoints() if each.spec.kind == "vllm" and each.spec.state == "ready"]
        self._due = {endpoint: self._due.get(endpoint, 0.0) for endpoint in asked}
        due = sorted((each for each in asked if self._due[each] <= now), key=self._due.__getitem__)[:MAX_CONCURRENT]
        for endpoint, context in zip(due, await asyncio.gather(*map(self._read, due)), strict=True):
            self._due[endpoint] = now + (self._retry_seconds if context is None else REFRESH_SECONDS)
            if context is not None:
                endpoint.context = context

    async def _read(self, endpoint: Endpoint) -> int | None:
        """None: it does not answer, or does not say."""
        origin = endpoint.address.origin
        head = request_head("GET", origin, "/v1/models", endpoint.address.headers) + b"\r\n"
        try:
            connection = await self._client.request(origin, head, b"", TIMEOUTS)
            try:
                body = await connection.read_all(MAX_BYTES)
            finally:
                self._client.release(origin, connection)
            cards = msgspec.json.decode(body, type=_Cards).data if connection.status == 200 else []
        except (UpstreamError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None
        return context_of([(card.id, card.max_model_len) for card in cards], endpoint)


def context_of(cards: Sequence[tuple[str, int | None]], endpoint: Endpoint) -> int | None:
    """The context of the endpoint's model in these cards; the longest of all where none has its name."""
    name = endpoint.spec.upstream_model or endpoint.spec.model
    known = [(id, context) for id, context in cards if context is not None and context > 0]
    return max((context for id, context in known if id == name), default=max((each for _, each in known), default=None))
