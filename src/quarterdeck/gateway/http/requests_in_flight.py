"""Requests in flight: counted, bounded in number and in memory, timed, drained.

The bounds hold for requests with a valid key, in all and for each key: a client without one takes no place. Of a key
the stated size of its bodies counts, of all keys together what has arrived: a client that states a size and sends
nothing only uses up its own share.

A request stops early when its caller hangs up, sends or reads too slowly, or when the gateway shuts down. In each case
the task that serves it is cancelled, which stops the engine and settles the request. Timeouts need no timer per piece:
each caller has a deadline, and one sweep per second checks all of them.

Whether a hang-up stops a request is decided in `RequestInFlight.hang_up`. It is detected in two places:
`bounded_protocol` (the connection is lost) and `asgi_exchange` (`http.disconnect`).
"""

import asyncio
import contextlib
import logging
from typing import Any, Literal

import msgspec

from quarterdeck.errors import APIError, RateLimitError, RequestTimeoutError, ServiceUnavailableError
from quarterdeck.settings.config import GatewayConfig
from quarterdeck.settings.shutdown import CANCEL_SECONDS

log = logging.getLogger(__name__)

Reason = Literal["gone", "slow", "shutting_down", "overloaded"]

MIB = 1024 * 1024
LARGE_BYTES = 64 * 1024
"""Only the bytes of larger bodies are counted: of others there are no more than requests in flight."""
MAX_KEYS = 4096
"""Keys whose use is remembered although they have no request in flight."""

SWEEP_SECONDS = 1.0


class KeyUse(msgspec.Struct, eq=False):
    """What the requests of one key use."""

    requests: int = 0
    bytes: int = 0


class RequestInFlight(msgspec.Struct, eq=False):
    """A request in flight and the task that serves it."""

    _task: "asyncio.Task[Any]"
    deadline: float = 0.0
    """Time of the loop by which the client must have sent or taken something. 0: nothing is expected of it."""
    patience: float = 0.0
    """Seconds that a write may take."""
    is_answered: bool = False
    """The answer has begun."""
    is_only_writing: bool = False
    """Only writing is left: a hang-up changes nothing any more."""
    headers: tuple[tuple[bytes, bytes], ...] = ()
    """Of a streamed answer that has begun."""
    reason: Reason | None = None
    """Why the task was cancelled. None: it was not, or not by this class."""
    use: KeyUse | None = None
    """Set by `RequestsInFlight.take_place`."""
    counts: bool = False
    """Whether it is one of `max_in_flight`."""
    stated: int = 0
    """Bytes counted for its key."""
    held: int = 0
    """Bytes counted for all keys."""

    def hang_up(self) -> None:
        """The client closed the connection."""
        if not self.is_only_writing:
            self.stop("gone")

    def stop(self, reason: Reason) -> None:
        """Cancel the task, once."""
        if self.reason is None:
            self.reason = reason
            self._task.cancel()

    def was_stopped(self) -> bool:
        """Whether a CancelledError just caught comes from `stop`. If so, the task is no longer cancelled afterwards."""
        if self.reason is None:
            return False
        self._task.uncancel()
        return True

    def error(self) -> APIError | None:
        """The error for the client of a stopped request. None: it is gone."""
        if self.reason == "gone":
            return None
        if self.reason == "overloaded":
            return too_much_memory(closes=True)
        return body_timeout() if self.reason == "slow" else shutting_down()


class RequestsInFlight(set[RequestInFlight]):
    """All requests in flight in one gateway."""

    def __init__(self, *, sweep_seconds: float = SWEEP_SECONDS) -> None:
        super().__init__()
        self.is_leaving = False
        """Every answer closes its connection, so that clients and load balancers turn to other gateways."""
        self.is_draining = False
        """Requests in flight may end; no further one is admitted."""
        self._late = 0
        """Requests admitted while `is_leaving`."""
        self.admitted = 0
        """Requests that count toward `max_in_flight`."""
        self.held = 0
        """Bytes of bodies in memory."""
        self._uses: dict[str, KeyUse] = {}
        self.sweep_seconds = sweep_seconds
        self._timer: asyncio.TimerHandle | None = None
        self._empty = asyncio.Event()
        """Cleared by `empty` only."""

    def enter(self, task: "asyncio.Task[Any]") -> RequestInFlight:
        """Count a request. `task` serves it and is the current one."""
        in_flight = RequestInFlight(task)
        self.add(in_flight)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self.sweep_seconds, self._sweep)
        return in_flight

    def leave(self, in_flight: RequestInFlight) -> None:
        self.discard(in_flight)
        if (use := in_flight.use) is not None:
            in_flight.use = None
            use.requests -= 1
            if in_flight.counts:
                self.admitted -= 1
            if in_flight.held or in_flight.stated:
                use.bytes -= in_flight.stated
                self.held -= in_flight.held
        if not self:
            self._empty.set()

    def take_place(
        self, in_flight: RequestInFlight, key: str, size: int | None, bounds: GatewayConfig, *, counts: bool = True
    ) -> None:
        """Check that a request that has entered may go on, and count it for its key. `size`: of its body, if stated.

        `counts`: it is one of `max_in_flight`. Raises RateLimitError and ServiceUnavailableError.
        """
        if self.is_leaving:
            self._take_late_place()
        use = self._uses.get(key) or self._first_use(key)
        requests = use.requests
        if requests >= bounds.max_in_flight_per_key:
            raise RateLimitError(
                f"This API key has too many requests in flight: at most {bounds.max_in_flight_per_key}.", retry_after=1
            )
        large = size if size is not None and size > LARGE_BYTES else 0
        if large:
            _check_size(use, large, bounds)
        if counts:
            admitted = self.admitted
            if admitted >= bounds.max_in_flight:
                raise ServiceUnavailableError("The gateway has too many requests in flight.", code="overloaded")
            in_flight.counts = True
            self.admitted = admitted + 1
        in_flight.use = use
        use.requests = requests + 1
        if large:
            in_flight.stated = large
            use.bytes += large

    def _take_late_place(self) -> None:
        """Of a request that arrives after SIGTERM. Raises ServiceUnavailableError."""
        if self.is_draining:
            raise shutting_down()
        self._late += 1

    def hold(self, in_flight: RequestInFlight, size: int, bounds: GatewayConfig) -> None:
        """Count the bytes of a body that has arrived and is decoded. Raises RateLimitError and ServiceUnavailableError
        where they are too many."""
        more = size - in_flight.held
        if self.held and self.held + more > bounds.max_body_mb_in_flight * MIB:
            raise too_much_memory()
        if (use := in_flight.use) is not None and (unstated := size - in_flight.stated) > 0:
            if use.bytes > in_flight.stated:  # else it is the key's only one
                _check_size(use, unstated, bounds)
            use.bytes += unstated
            in_flight.stated = size
        self.count(in_flight, more)

    def arrive(self, in_flight: RequestInFlight, size: int, bounds: GatewayConfig) -> None:
        """Count the next bytes of a body. Stops the request where they are too many."""
        self.count(in_flight, size)
        if self.held > size and self.held > bounds.max_body_mb_in_flight * MIB:
            in_flight.stop("overloaded")
        elif (use := in_flight.use) is not None and in_flight.held > in_flight.stated:  # its size was not stated
            use.bytes += size
            in_flight.stated += size
            if use.bytes > in_flight.stated and use.bytes > bounds.max_body_mb_in_flight_per_key * MIB:
                in_flight.stop("overloaded")

    def count(self, in_flight: RequestInFlight, size: int) -> None:
        """Count bytes held for the request, without a bound: new requests are refused for them."""
        in_flight.held += size
        self.held += size

    async def empty(self) -> None:
        """Wait until no request is in flight."""
        if self:
            self._empty.clear()
            await self._empty.wait()

    async def serve_on(self, delay: float, at_most: float, hurry: asyncio.Event) -> None:
        """Go on serving, with answers that close their connections, until it was quiet for a quarter of `delay`: after
        `delay` seconds, counted from the end of the last request whose client was not asked to close. Requests that
        arrive later come over new connections, from a load balancer that still has this gateway in its list.

        Ends after `at_most` seconds, or when `hurry` is set.
        """
        self.is_leaving = True
        earlier = set(self)
        loop = asyncio.get_running_loop()
        asked_since = loop.time()
        until = asked_since + at_most
        log.info("leaving: %d requests in flight, answers close their connections", len(self))
        while not hurry.is_set() and (now := loop.time()) < until:
            if not earlier.isdisjoint(self):
                asked_since = now
            late = self._late
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(delay / 4, until - now)):
                    await hurry.wait()
            is_asked = earlier.isdisjoint(self) and loop.time() - asked_since >= delay
            if is_asked and self._late == late:
                return

    async def drain(self, seconds: float, hurry: asyncio.Event, *, cancel_seconds: float = CANCEL_SECONDS) -> None:
        """Admit no further requests and wait for those in flight, at most `seconds` or until `hurry` is set. Then
        cancel the rest and wait at most `cancel_seconds` for them."""
        self.is_leaving = self.is_draining = True
        log.info("draining %d requests, at most %g s", len(self), seconds)
        hurrying = asyncio.create_task(hurry.wait())
        empty = asyncio.create_task(self.empty())
        await asyncio.wait({hurrying, empty}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        hurrying.cancel()
        empty.cancel()
        if self:
            log.warning("cancelling %d requests that did not end in time", len(self))
            self.stop_all()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(cancel_seconds):
                    await self.empty()

    def stop_all(self) -> None:
        """Cancel all requests because the gateway shuts down."""
        for in_flight in tuple(self):
            in_flight.stop("shutting_down")

    def _first_use(self, key: str) -> KeyUse:
        """Kept after the key's last request: most keys come again."""
        if len(self._uses) >= MAX_KEYS:
            self._uses = {key: use for key, use in self._uses.items() if use.requests}
        use = self._uses[key] = KeyUse()
        return use

    def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        for in_flight in self:
            if in_flight.deadline and in_flight.deadline < now:
                in_flight.stop("slow")
        # One sweep runs after the last request has left: on a busy gateway the next one follows at once.
        self._timer = loop.call_later(self.sweep_seconds, self._sweep) if self else None


def _check_size(use: KeyUse, size: int, bounds: GatewayConfig) -> None:
    """One body may have any size that its route allows, whatever the bound on several is."""
    if use.bytes and use.bytes + size > bounds.max_body_mb_in_flight_per_key * MIB:
        raise RateLimitError(
            "The request bodies in flight of this API key are too large: at most "
            f"{bounds.max_body_mb_in_flight_per_key} MiB together.",
            retry_after=1,
        )


def shutting_down() -> ServiceUnavailableError:
    # The connection closes, so that a retry reaches another gateway.
    headers = {"connection": "close"}
    return ServiceUnavailableError("The gateway is shutting down.", code="shutting_down", headers=headers)


def body_timeout() -> RequestTimeoutError:
    # The rest of the body would be taken for the next request.
    return RequestTimeoutError("The request body was not received in time.", headers={"connection": "close"})


def too_much_memory(*, closes: bool = False) -> ServiceUnavailableError:
    """`closes`: a part of the body is still in the connection."""
    headers = {"connection": "close"} if closes else None
    return ServiceUnavailableError("The gateway holds too many request bodies.", code="overloaded", headers=headers)
