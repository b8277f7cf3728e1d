"""Admission: limits, budgets and the cache look-up in one Redis round trip.

Without Redis, `on_redis_down` decides: no request is admitted, or those that fit into a share of each limit.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable

import msgspec

from quarterdeck.accounting import admission
from quarterdeck.accounting.admission import Admission, Reservation, read_admission
from quarterdeck.accounting.local_limits import LocalLimits
from quarterdeck.accounting.principal import Principal
from quarterdeck.accounting.rate_headers import rate_headers
from quarterdeck.accounting.refusal_notes import RefusalNotes
from quarterdeck.accounting.refusals import limits_unavailable, records_unavailable, refusal_of
from quarterdeck.accounting.reservations import Reservations
from quarterdeck.accounting.scopes import ScopeSet
from quarterdeck.accounting.settlement import Settlement
from quarterdeck.errors import APIError
from quarterdeck.inference.cache.answers import Lookup
from quarterdeck.inference.cache.entry import Entry
from quarterdeck.inference.call import Head, Headers
from quarterdeck.inference.call_state import Call
from quarterdeck.inference.estimation import Estimate, fit, fits_at_best, for_any_tokenizer, most_cost, with_prompt
from quarterdeck.inference.metering.record_templates import RecordTemplates
from quarterdeck.inference.request import InferenceRequest
from quarterdeck.inference.routing.directory import ServedModel
from quarterdeck.net.redis import Redis, RedisError, RedisSilentError, RedisUnavailableError
from quarterdeck.net.tasks import Spawn
from quarterdeck.settings.config import GatewayConfig

COUNTED_SECONDS = 0.1
"""Between two looks whether a budget has been counted."""
MAX_WAITING = 256
"""Requests that wait for a budget to be counted; further ones are refused."""
MAX_COUNTING = 4
"""Prompts counted at a time: a key whose budget is nearly exhausted must not take the engine's time from others."""


class Admitted(msgspec.Struct, frozen=True, eq=False, gc=False):
    """How a request was admitted."""

    principal: Principal
    """The key as it was admitted: read again where its limits had changed."""
    headers: Headers = ()
    """Rate-limit headers of the answer."""
    found: Entry | None = None
    """The cached answer. Nothing is reserved then."""
    is_local: bool = False
    """Admitted without Redis. Nothing is reserved then."""
    reserved: Estimate | None = None
    """What was reserved: less than asked for where only that is left. None: nothing."""
    held: int = 0
    """Money, in 10⁻⁶ $."""


class Gate:
    """Admits requests.

    `reread` re-reads a key after its organisation's revision has changed. It raises AuthenticationError if the key was
    revoked.
    """

    def __init__(
        self,
        redis: Redis,
        settlement: Settlement,
        spawn: Spawn,
        templates: RecordTemplates,
        reread: Callable[[Principal, int], Awaitable[Principal]],
    ) -> None:
        self._redis = redis
        self._reserving = Reservations(redis, spawn)
        self._settlement = settlement
        self._templates = templates
        self._reread = reread
        self._local = LocalLimits()
        self._notes = RefusalNotes(redis, spawn)
        self.refused: Counter[tuple[str, ...]] = Counter()
        """Refused requests by reason and kind of scope. They leave no record; the metrics read these counters."""
        self.warned: Counter[tuple[str, ...]] = Counter()
        self.admitted_locally = 0
        self._counting = asyncio.Semaphore(MAX_COUNTING)
        self._waiting = 0

    async def admit(
        self,
        head: Head,
        request: InferenceRequest,
        served: ServedModel,
        reserved: Estimate,
        *,
        lookup: Lookup | None,
        gateway: GatewayConfig,
        body: bytes,
        count_prompt: Callable[[InferenceRequest, ServedModel, bytes], Awaitable[int | None]],
    ) -> Admitted:
        """Reserve `reserved` in the key's scopes, or find the cached answer. Raises APIError where it is refused.

        `count_prompt` has the model's tokenizer count the prompt of `body`, which the engine is sent. It is called
        where the budget has no room for the upper bound, but may have for the exact count.
        """
        if not self._settlement.can_record:
            self.refused["records", "org"] += 1
            raise records_unavailable()
        principal, may_count, until = head.principal, True, 0.0
        cache_key = lookup.redis_key if lookup is not None else None
        while True:
            wanted = self._reservation(head, principal, request, served, reserved, cache_key, gateway)
            try:
                answer = await self._reserving.reserve(wanted)
            except (RedisUnavailableError, RedisError) as error:
                return self._admit_without_redis(principal, wanted, reserved, gateway, error)
            except asyncio.CancelledError:
                self._reserving.release(wanted)
                raise
            admitted = read_admission(answer, principal.scope_set)
            if admitted.refused is not None:
                fresh = await self._with_new_limits(principal, admitted)
                if fresh is not None:
                    principal = fresh
                    continue
                if admitted.refused == "cold" and await self._wait_for_budget(gateway, until):
                    until = until or time.monotonic() + gateway.budget_wait_seconds
                    continue
                if admitted.refused == "money":
                    smaller = fit(reserved, admitted.money_left, served.rates)
                    if smaller is None and may_count and fits_at_best(reserved, admitted.money_left, served.rates):
                        may_count = False
                        async with self._counting:
                            prompt = await count_prompt(request, served, body)
                        if prompt is not None:
                            reserved = with_prompt(reserved, prompt)
                            smaller = fit(reserved, admitted.money_left, served.rates)
                    if smaller is not None:
                        reserved = smaller
                        continue
                if admitted.refused == "money":
                    self._notes.note(principal.org, admitted.scope)
                raise self._refusal(admitted, asked=wanted.money)
            if admitted.revision != principal.revision:  # also smaller: a Redis that lost its data counts from 0
                try:
                    await self._reread(principal, admitted.revision)
                except BaseException:  # revoked, or cancelled
                    self._reserving.release(wanted)
                    raise
            found = None
            if admitted.cached is not None and lookup is not None:
                found = lookup.read(admitted.cached, time.time())
                if found is None:  # older than this client accepts
                    cache_key = None
                    continue
            if admitted.warned:
                self.warned[(kind_of(admitted.warned),)] += 1
            return Admitted(principal, rate_headers(admitted), found, reserved=reserved, held=wanted.money)

    def give_back(self, scope_set: ScopeSet, tokens: int) -> None:
        """Return unused tokens of a request that was admitted without Redis. Otherwise *settle* returns them."""
        self._local.give_back(scope_set, tokens)

    async def extend(self, call: Call, served: ServedModel) -> None:
        """Hold what the request can cost at `served`, which it goes to instead of the model that it was admitted for.

        Raises APIError where a budget has no room for the difference. Done before such a model is called, and not at
        admission: a key without money may use a free model whose fallback is not.
        """
        scope_set = call.head.principal.scope_set
        if call.reserved.any_prompt > call.reserved.most_prompt:
            call.reserved = call.meter.reserved = for_any_tokenizer(call.reserved)
        money = most_cost(call.reserved, served.rates)
        if money <= call.held or not scope_set.has_budget:
            return
        if call.is_local:  # as in `LocalLimits.take`: a budget that denies is not known without Redis
            if scope_set.denies:
                raise self._refusal(Admission("cold", 0, "org"))
            return
        try:
            extended = await admission.extend(self._redis, scope_set, call.head.request_id, money)
        except (RedisUnavailableError, RedisError) as error:
            if scope_set.denies:
                raise self._refusal(Admission("cold", 0, "org")) from error
            return
        if extended.refused is not None:
            raise self._refusal(extended, asked=money - call.held)
        call.held = money

    async def _wait_for_budget(self, gateway: GatewayConfig, until: float) -> bool:
        """Wait a moment for the worker to count a budget. False: it has taken too long."""
        if (until and time.monotonic() >= until) or not gateway.budget_wait_seconds:
            return False
        if self._waiting >= MAX_WAITING:
            return False
        self._waiting += 1
        try:
            await asyncio.sleep(min(COUNTED_SECONDS, gateway.budget_wait_seconds))
        finally:
            self._waiting -= 1
        return True

    async def _with_new_limits(self, principal: Principal, refused: Admission) -> Principal | None:
        """The refused key, read again. None: its limits have not changed since it was read."""
        if refused.revision != principal.revision:
            fresh = await self._reread(principal, refused.revision)
            if fresh.scope_set != principal.scope_set:
                return fresh
        return None

    def _admit_without_redis(
        self,
        principal: Principal,
        wanted: Reservation,
        reserved: Estimate,
        gateway: GatewayConfig,
        error: Exception,
    ) -> Admitted:
        refused = None
        if gateway.on_redis_down != "deny":
            refused = self._local.take(
                wanted.scope_set, wanted.tokens, wanted.money, share=gateway.redis_down_share, now=time.monotonic()
            )
            if refused.refused is None:
                self.admitted_locally += 1
                return Admitted(principal, is_local=True, reserved=reserved)
        if isinstance(error, RedisSilentError):
            # Redis has the command and may still run it. Only requests that waited when it fell silent come here.
            self._reserving.release(wanted)
        raise self._refusal(refused) from error

    def _refusal(self, admitted: Admission | None, *, asked: int = 0) -> APIError:
        """The error of a refused request. None: Redis is unavailable and `on_redis_down` denies."""
        if admitted is None:
            self.refused["redis", "org"] += 1
            return limits_unavailable()
        self.refused[admitted.refused or "", kind_of(admitted.scope)] += 1
        return refusal_of(admitted, asked=asked)

    def _reservation(
        self,
        head: Head,
        principal: Principal,
        request: InferenceRequest,
        served: ServedModel,
        reserved: Estimate,
        cache_key: str | None,
        gateway: GatewayConfig,
    ) -> Reservation:
        scope_set = principal.scope_set
        template = self._templates.get(principal, served, head.operation)
        money = 0
        if scope_set.has_budget:
            money = most_cost(reserved, served.rates)
        return Reservation(
            head.request_id,
            scope_set,
            template.note(
                head.request_id, head.started, stream=request.is_streaming, trace=head.trace, parent=head.parent
            ),
            reserved.total if reserved.total < scope_set.most_tokens else scope_set.most_tokens,
            money,
            self._settlement.lease_seconds,
            cache_key,
            gateway.max_waiting_records,
        )


def kind_of(scope: str) -> str:
    """`key`, `team` or `org`. A refusal without a scope (too many waiting records) counts as the org's."""
    return scope.partition(":")[0] or "org"
