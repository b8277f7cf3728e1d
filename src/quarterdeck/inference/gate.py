"""Lets a request in, or says why not: limits, budgets and the kept answer in one round trip to Redis.

Where Redis is away, `on_redis_down` decides: nobody, or those whom a share of each limit lets pass.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable

from quarterdeck.accounting import admission
from quarterdeck.accounting.admission import Admission, Reservation, read_admission
from quarterdeck.accounting.local_limits import LocalLimits
from quarterdeck.accounting.pricing import estimated_cost
from quarterdeck.accounting.principal import Principal
from quarterdeck.accounting.rate_headers import rate_headers
from quarterdeck.accounting.refusals import limits_unavailable, refusal_of
from quarterdeck.accounting.reservations import Reserving
from quarterdeck.accounting.settlement import Settlement
from quarterdeck.errors import APIError
from quarterdeck.inference.call_state import Call, Headers
from quarterdeck.net.redis import Redis, RedisError, RedisSilentError, RedisUnavailableError
from quarterdeck.net.tasks import Spawn
from quarterdeck.record import RequestRecord
from quarterdeck.settings.config import GatewayConfig

log = logging.getLogger(__name__)

RELEASE_SECONDS = 0.5
"""Between two tries to give a reservation back. Redis' own retries are no faster."""


class Gate:
    """`reread` reads a key again whose org has changed, and raises AuthenticationError where it is gone."""

    def __init__(
        self,
        redis: Redis,
        settlement: Settlement,
        spawn: Spawn,
        reread: Callable[[Principal, int], Awaitable[Principal]],
    ) -> None:
        self._redis = redis
        self._reserving = Reserving(redis, spawn)
        self._settlement = settlement
        self._spawn = spawn
        self._reread = reread
        self._local = LocalLimits()
        self.refused: Counter[tuple[str, ...]] = Counter()
        """How often, by reason and kind of scope. Such a request leaves no record; read by metrics, as what follows."""
        self.warned: Counter[tuple[str, ...]] = Counter()
        self.admitted_locally = 0

    def admit(self, call: Call, gateway: GatewayConfig) -> Awaitable[Headers]:
        """The rate-limit headers of its answer; a kept answer is in `call.found` then. Raises APIError."""
        return self._admit(call, gateway, call.lookup.redis_key if call.lookup is not None else None)

    async def _admit(self, call: Call, gateway: GatewayConfig, cache_key: str | None) -> Headers:
        wanted = self._wanted(call, gateway, cache_key)
        try:
            said = await self._reserving.reserve(wanted)
        except (RedisUnavailableError, RedisError) as error:
            denies = gateway.on_redis_down == "deny"
            refused = None if denies else self._admit_locally(call, wanted, gateway)
            if refused is not None and refused.refused is None:
                self.admitted_locally += 1
                return ()
            if isinstance(error, RedisSilentError):
                self._spawn(self._release_later(wanted))
            raise self._refusal(refused) from error
        except asyncio.CancelledError:
            # The reservation may have been made; on one connection the release comes after it.
            self._spawn(self._release(wanted))
            raise
        principal = call.head.principal
        admitted = read_admission(said, principal.counters)
        if admitted.refused is not None:
            if admitted.revision == principal.revision:
                raise self._refusal(admitted)
            fresh = await self._reread(principal, admitted.revision)
            if fresh.counters == principal.counters:
                raise self._refusal(admitted)
            call.speak_for(fresh)  # its limits were changed, and nobody had told us yet
            return await self._admit(call, gateway, cache_key)
        if admitted.revision != principal.revision:  # also smaller: a Redis that came back empty counts anew
            try:
                await self._reread(principal, admitted.revision)
            except BaseException:  # refused, or cancelled meanwhile
                self._spawn(self._release(wanted))
                raise
        if admitted.cached is not None and call.lookup is not None:
            call.found = call.lookup.read(admitted.cached, time.time())
            if call.found is None:  # it is older than this caller takes: as if there were none
                return await self._admit(call, gateway, None)
        else:
            self._settlement.begin(principal.org, call.head.request_id, call.note)
        if admitted.warned:
            self.warned[(kind_of(admitted.warned),)] += 1
        return rate_headers(admitted)

    def give_back(self, call: Call, record: RequestRecord) -> None:
        """What was taken without Redis (`is_local`) and not used. What Redis gave, *settle* gives back."""
        used = record.input_tokens + record.output_tokens
        self._local.give_back(call.head.principal.counters, call.reserved.total - used)

    def _refusal(self, admitted: Admission | None) -> APIError:
        """None: Redis is away, and nobody is let in then."""
        if admitted is None:
            self.refused["redis", "org"] += 1
            return limits_unavailable()
        self.refused[admitted.refused or "", kind_of(admitted.scope)] += 1
        return refusal_of(admitted)

    def _wanted(self, call: Call, gateway: GatewayConfig, cache_key: str | None) -> Reservation:
        head, meter, reserved = call.head, call.meter, call.reserved
        principal, served = head.principal, meter.served
        counters = principal.counters
        form = meter.forms.of(principal, served, head.operation)
        money = 0
        if counters.has_budget:
            money = estimated_cost(reserved.prompt, reserved.output, served.rates)
        return Reservation(
            head.request_id,
            counters,
            form.note(head.request_id, head.started, stream=call.is_stream),
            reserved.total,
            money,
            self._settlement.lease_seconds,
            cache_key,
            gateway.max_waiting_records,
        )

    def _admit_locally(self, call: Call, wanted: Reservation, gateway: GatewayConfig) -> Admission:
        call.is_local = True
        share = gateway.redis_down_share
        return self._local.take(wanted.counters, wanted.tokens, wanted.money, share=share, now=time.monotonic())

    async def _release_later(self, reservation: Reservation) -> None:
        """Once Redis is awake: it may make the reservation then, and only its lease would end it, with a record of a
        request that was refused. There are as many of these as waited for Redis when it fell silent."""
        while True:
            try:
                await admission.release(self._redis, reservation)
            except RedisUnavailableError:
                await asyncio.sleep(RELEASE_SECONDS)
                continue
            except RedisError as error:
                _not_released(error)
            return

    async def _release(self, reservation: Reservation) -> None:
        try:
            await admission.release(self._redis, reservation)
        except (RedisUnavailableError, RedisError) as error:
            _not_released(error)


def _not_released(error: Exception) -> None:
    log.warning("a reservation could not be given back, it will expire: %s", error)


def kind_of(scope: str) -> str:
    """`key`, `team` or `org`; what is of no scope (records that wait) is the org's."""
    return scope.partition(":")[0] or "org"
