"""`GET /admin/requests/tail`: requests of the admin's organisation as they reach the ledger, as server-sent events.

While somebody listens, a key in Redis says so, and the worker also appends the records that it acknowledges to a short
stream (`worker/lua/commit.lua`), which is read here. Event ids are that stream's, so a client that reconnects within
half a minute, with `Last-Event-ID`, misses nothing. Where requests are missing, as it was away for longer or reads more
slowly than they come, there is an event `gap`.
"""

import asyncio
import re
from collections import Counter
from collections.abc import Awaitable, Callable
from time import monotonic
from urllib.parse import parse_qsl

import msgspec

from quarterdeck.accounting.principal import Principal
from quarterdeck.accounting.redis_keys import tail_key, tailing_key
from quarterdeck.errors import BadRequestError, PermissionDeniedError, RateLimitError, ServiceUnavailableError
from quarterdeck.gateway.http.registry import Route
from quarterdeck.gateway.http.request_head import RequestHead
from quarterdeck.inference.call import Reply, Sink
from quarterdeck.net.redis import Redis, RedisError, RedisUnavailableError, tag_of
from quarterdeck.protocol import sse
from quarterdeck.record import RequestRecord, decode
from quarterdeck.resources.requests.objects import request_object

PATH = "/admin/requests/tail"
MAX_TAILS = 20
"""Listeners of one gateway: each asks Redis twice a second."""
MAX_TAILS_OF_ORG = 10
"""So that one organisation's listeners leave room for another's."""
AT_ONCE = 200
"""Requests read at once."""
POLL_SECONDS = 0.5
TAILING_SECONDS = 30
"""How long after a listener has gone the worker still fills the stream."""
RENEW_SECONDS = 10.0
"""How long a key that was revoked still follows."""
HEARTBEAT_SECONDS = 10.0
"""Between two comments while there are no requests: proxies close a silent connection."""
_ID = re.compile(rb"[0-9]{1,20}-[0-9]{1,20}")
FILTERS = ("key", "team", "model", "route", "status", "error_code", "user", "session", "operation")


def routes(redis: Redis, confirm: Callable[[Principal], Awaitable[Principal]]) -> list[Route]:
    """`confirm` reads the key as it is now. Raises AuthenticationError."""
    tails = _Tails(redis, confirm)
    return [Route.buffered(PATH, tails.open, method="GET", max_bytes=1024)]


class _Tails:
    def __init__(self, redis: Redis, confirm: Callable[[Principal], Awaitable[Principal]]) -> None:
        self._redis = redis
        self._confirm = confirm
        self._counts: Counter[str] = Counter()
        """Listeners by organisation."""

    async def open(self, head: RequestHead, body: bytes) -> Reply:
        """Answer with a stream. Raises APIError."""
        principal = await self._confirmed(head.principal)
        wanted = _filters(head.query)
        after = head.header(b"last-event-id")
        if after is not None and not (_ID.fullmatch(after) and max(_number(after)) < 2**64):
            raise BadRequestError("`Last-Event-ID` is not an id of this stream.", code="invalid_value")
        org = principal.org
        if self._counts.total() >= MAX_TAILS or self._counts[org] >= MAX_TAILS_OF_ORG:
            raise RateLimitError("Too many clients are following this gateway already.", code="too_many_tails")
        self._counts[org] += 1
        stream = RequestTail(
            self._redis, org, wanted, after, lambda: self._confirmed(principal), lambda: self._closed(org)
        )
        return Reply(200, sse.HEADERS, stream=stream)

    async def _confirmed(self, principal: Principal) -> Principal:
        """The key as it is now. Raises APIError where it is not, or no longer, an admin's."""
        now = await self._confirm(principal)
        if not now.is_admin:
            raise PermissionDeniedError("This endpoint requires an admin key.", code="admin_key_required")
        return now

    def _closed(self, org: str) -> None:
        self._counts[org] -= 1


class RequestTail:
    """A `Stream` that ends when its client disconnects or the gateway shuts down."""

    def __init__(
        self,
        redis: Redis,
        org: str,
        wanted: dict[str, str],
        after: bytes | None,
        confirm: Callable[[], Awaitable[object]],
        on_close: Callable[[], None],
        *,
        poll_seconds: float = POLL_SECONDS,
    ) -> None:
        """`confirm` raises APIError where the listener's key may not follow any more."""
        self._redis = redis
        self._org = org
        self._key = tail_key(org)
        self._wanted = wanted
        self._after = after
        self._confirm = confirm
        self._on_close = on_close
        self._poll_seconds = poll_seconds
        self._renewed = self._written = 0.0
        self._has_read = self._is_behind = False
        self._is_closed = False

    async def pump(self, sink: Sink) -> None:
        await self._put(sink, b": following\n\n")
        confirmed = monotonic()
        while True:
            if monotonic() - confirmed > RENEW_SECONDS:
                await self._confirm_again()
                confirmed = monotonic()
            try:
                piece = await self._next()
            except (RedisUnavailableError, RedisError):
                piece, self._is_behind = b"", False  # the worker delivers nothing either; the stream goes on later
            if piece:
                await self._put(sink, piece)
            elif monotonic() - self._written > HEARTBEAT_SECONDS:
                await self._put(sink, b": waiting\n\n")
            await asyncio.sleep(0 if self._is_behind else self._poll_seconds)

    async def aclose(self) -> None:
        if not self._is_closed:
            self._is_closed = True
            self._on_close()

    async def _confirm_again(self) -> None:
        try:
            await self._confirm()
        except ServiceUnavailableError:  # the database is away: as elsewhere, the key stays valid
            return

    async def _put(self, sink: Sink, piece: bytes) -> None:
        self._written = monotonic()
        if not sink.put(piece):
            await sink.room()

    async def _next(self) -> bytes:
        """The events since the last call."""
        now = monotonic()
        if now - self._renewed > RENEW_SECONDS:
            await self._redis.call("SET", tailing_key(self._org), "1", "EX", TAILING_SECONDS)
            self._renewed = now
        pieces = []
        if self._after is None:
            seconds, micros = await self._redis.call("TIME", tag=tag_of(self._key))
            self._after = b"%d-0" % (int(seconds) * 1000 + int(micros) // 1000)
        elif (self._is_behind or not self._has_read) and await self._has_gap(self._after):
            pieces.append(b"event: gap\ndata: {}\n\n")
        self._has_read = True
        reply = await self._redis.call("XREAD", "COUNT", str(AT_ONCE), "STREAMS", self._key, self._after)
        self._is_behind = False
        for _, entries in reply or ():
            self._is_behind = len(entries) == AT_ONCE
            for entry_id, fields in entries:
                self._after = entry_id
                if (record := _record(fields)) is not None and _matches(record, self._wanted):
                    data = msgspec.json.encode(request_object(record))
                    pieces.append(b"id: %b\ndata: %b\n\n" % (entry_id, data))
        return b"".join(pieces)

    async def _has_gap(self, after: bytes) -> bool:
        """Whether requests after that id are no longer in the stream: it was trimmed beyond it, or has expired."""
        oldest = await self._redis.call("XRANGE", self._key, "-", "+", "COUNT", "1")
        return not oldest or _number(oldest[0][0]) > _number(after)


def _number(id: bytes) -> tuple[int, int]:
    milliseconds, _, number = id.partition(b"-")
    return int(milliseconds), int(number)


def _record(fields: list[bytes]) -> RequestRecord | None:
    try:
        return decode(fields[1])
    except (msgspec.DecodeError, UnicodeDecodeError, IndexError):  # of another version
        return None


def _matches(record: RequestRecord, wanted: dict[str, str]) -> bool:
    for name, value in wanted.items():
        if name == "failed":
            if (record.status != "ok") != (value == "true"):
                return False
        elif getattr(record, name) != value:
            return False
    return True


def _filters(query: bytes) -> dict[str, str]:
    """The filters of a query string. Raises BadRequestError for a parameter that is none."""
    found = dict(parse_qsl(query.decode("latin-1"), keep_blank_values=True))
    for name, value in found.items():
        if name not in (*FILTERS, "failed"):
            raise BadRequestError(f"Unknown parameter: '{name[:100]}'.", param=name[:100], code="unknown_parameter")
        if name == "failed" and value not in ("true", "false"):
            raise BadRequestError("`failed` must be `true` or `false`.", param="failed", code="invalid_value")
    return found
