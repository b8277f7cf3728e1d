"""Leases of reservations: gateways renew them, and the worker settles the requests of a gateway that died."""

import logging
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from quarterdeck.accounting.admission import LEASE_SECONDS
from quarterdeck.accounting.commit import Note, settle_note
from quarterdeck.accounting.redis_keys import deadlines_key, reservations_key
from quarterdeck.accounting.scripts import DROP_RESERVATION, FIND_EXPIRED, RENEW
from quarterdeck.net.redis import Redis, RedisError, RedisUnavailableError

log = logging.getLogger(__name__)

GRACE_SECONDS = 5.0
"""How long a gateway has to renew a reservation that was found expired: more than it needs to notice that a Redis which
was away for longer than a lease is back."""
MAX_LEASE_SECONDS = 900.0
"""The longest lease that a gateway may ask for (`reservation_lease_seconds`). A deadline beyond it was set by a clock
that was ahead, and is shortened to it: what a dead gateway held would else be held until the clock has caught up."""
NOTE_AT = 24
"""Where the note begins in a reservation (`lua/reservation.lua`)."""
NOTES_AT_ONCE = 200
"""Reservations renewed by one script: a thousand streams must not block Redis, nor this loop, for the time of all."""


class Leases:
    """The requests in flight in this gateway, and the renewal of their reservations."""

    def __init__(self, redis: Redis, *, seconds: float = LEASE_SECONDS, notes_at_once: int = NOTES_AT_ONCE) -> None:
        self.seconds = seconds
        self._redis = redis
        self._notes_at_once = notes_at_once
        self._in_flight: dict[str, dict[str, Callable[[], Note]]] = defaultdict(dict)

    def begin(self, org: str, request_id: str, note: Callable[[], Note]) -> None:
        """The request is in flight; `note` returns its state at the time of the call."""
        self._in_flight[org][request_id] = note

    def end(self, org: str, request_id: str) -> None:
        """The request is settled, or in the spool."""
        self._in_flight[org].pop(request_id, None)

    async def renew(self) -> bool:
        """Renew all. False where Redis is away: to be retried soon."""
        for org, in_flight in tuple(self._in_flight.items()):
            ids = tuple(in_flight)
            for start in range(0, len(ids), self._notes_at_once):
                notes = [(id, in_flight[id]()) for id in ids[start : start + self._notes_at_once] if id in in_flight]
                try:
                    await renew(self._redis, org, notes, lease_seconds=self.seconds)
                except (RedisUnavailableError, RedisError) as error:
                    log.debug("could not renew reservations: %s", error)
                    return False
        return True


async def renew(
    redis: Redis, org: str, notes: Sequence[tuple[str, Note]], *, lease_seconds: float = LEASE_SECONDS
) -> None:
    """Extend the leases of these requests and store their notes. Raises RedisUnavailableError and RedisError."""
    arguments: list[Any] = [round(lease_seconds * 1000)]
    for request_id, note in notes:
        arguments += (request_id, msgspec.json.encode(note))
    await redis.run(RENEW, (reservations_key(org), deadlines_key(org)), arguments)


async def settle_expired(redis: Redis, org: str, *, most: int = 100, grace_seconds: float = GRACE_SECONDS) -> int:
    """Settle requests whose gateway died, as `lost` at the tokens last seen. Returns how many. Repeatable.

    A reservation is settled when it is found expired for the second time, `grace_seconds` after the first; 0: at once.
    Raises RedisUnavailableError and RedisError.
    """
    keys = (reservations_key(org), deadlines_key(org))
    arguments = (most, int(grace_seconds * 1000), int(MAX_LEASE_SECONDS * 1000))
    found = await redis.run(FIND_EXPIRED, keys, arguments)
    count = 0
    for request_id, data in zip(found[::2], found[1::2], strict=True):
        try:
            note = msgspec.json.decode(data, type=Note)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            log.error("unreadable reservation of %s dropped: %s", request_id.decode(), error)
            await redis.run(DROP_RESERVATION, keys, (request_id,))
            continue
        count += await settle_note(redis, note)
    return count


async def settle_lost(redis: Redis, org: str, request_id: str) -> bool:
    """Settle a request whose gateway is known to be dead, as `lost` at the tokens last seen. False: it has no
    reservation (any more). Its facts replace the estimate, should it be made again under the same id.

    Raises RedisUnavailableError and RedisError.
    """
    data = await redis.call("HGET", reservations_key(org), request_id)
    if data is None:
        return False
    try:
        note = msgspec.json.decode(bytes(data)[NOTE_AT:].removeprefix(b"!"), type=Note)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False  # the worker drops it when it expires
    return await settle_note(redis, note)


async def abandon(redis: Redis, org: str, request_id: str) -> None:
    """`settle_lost`, if Redis is there: else its lease ends, and the worker settles it."""
    try:
        await settle_lost(redis, org, request_id)
    except (RedisUnavailableError, RedisError) as error:
        log.warning("could not settle a lost request, its lease will end: %s", error)
