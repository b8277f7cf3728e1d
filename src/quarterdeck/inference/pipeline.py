"""One request from its head to its record: resolve, admit, pick, call, meter.

Knows neither ASGI nor a socket. Until an endpoint's first event is in hand another may be tried; after it, none: a
failure is then a typed event, never a silent end. However a request ends, it is settled once.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from quarterdeck.errors import (
    APIError,
    BadRequestError,
    EngineError,
    EngineUnavailableError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitError,
    ServiceUnavailableError,
)
from quarterdeck.inference import admission
from quarterdeck.inference.admission import Note, Reservation
from quarterdeck.inference.cache.answers import AnswerCache, Lookup
from quarterdeck.inference.cache.entry import Entry, hit
from quarterdeck.inference.calls import Head, Operation, Reply
from quarterdeck.inference.counting import count_what_was_received, estimate_what_was_received
from quarterdeck.inference.directory import Directory, Route, Served
from quarterdeck.inference.endpoints import Endpoint, Endpoints
from quarterdeck.inference.engine_client import EngineAnswer, EngineClient
from quarterdeck.inference.heartbeats import patiently
from quarterdeck.inference.local_limits import LocalLimits
from quarterdeck.inference.metering import Meter, error_code
from quarterdeck.inference.mirror import Mirror
from quarterdeck.inference.notes import NoteHeads, note_of
from quarterdeck.inference.preparation import Estimate, estimate, for_endpoint, prepared
from quarterdeck.inference.pricing import estimated_cost
from quarterdeck.inference.principal import Principal
from quarterdeck.inference.queueing import Queues
from quarterdeck.inference.rate_headers import rate_headers
from quarterdeck.inference.refusals import limits_unavailable, refusal_of
from quarterdeck.inference.relay import Relay
from quarterdeck.inference.resume import Lost, Resumed, continue_at, is_resumable
from quarterdeck.inference.routing.router import Choice, Router, Selection
from quarterdeck.inference.settlement import Settlement
from quarterdeck.protocol import requests
from quarterdeck.protocol.requests import AnyRequest, Generation
from quarterdeck.record import Attempt, RequestRecord, Status
from quarterdeck.settings.config import GatewayConfig
from quarterdeck.store.redis import Redis, RedisError, RedisUnavailableError

log = logging.getLogger(__name__)

KINDS: dict[Operation, type[AnyRequest]] = {
    Operation.CHAT: requests.ChatCompletion,
    Operation.COMPLETIONS: requests.Completion,
    Operation.EMBEDDINGS: requests.Embedding,
    Operation.TOKENIZE: requests.Tokenize,
    Operation.DETOKENIZE: requests.Detokenize,
    Operation.SCORE: requests.Score,
}
CLIENT_CLOSED_REQUEST = 499
"""nginx's word for a caller who hung up before there was an answer."""
GENERATING = (Operation.CHAT, Operation.COMPLETIONS)
FREE = (Operation.TOKENIZE, Operation.DETOKENIZE)
"""No model runs for them: they have no usage, so none is looked for."""
ONLY_VLLM = (*FREE, Operation.SCORE)
MAX_NAME = 200
"""Characters of a model's name that a message repeats: a caller may have sent megabytes."""
COUNTED_AT_ONCE = 8
"""Answers whose tokens are counted at the same time: it is the engine's time, and others wait for it."""
MOST_TO_COUNT = 256
"""Answers that wait for it; the next one is estimated. Each holds its prompt and text."""
SSE_HEADERS = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
)


@dataclass(slots=True, eq=False)
class _Call:
    """One request under way."""

    head: Head
    meter: Meter
    body: bytes
    shows_usage: bool
    reserved: Estimate
    selection: Selection
    lookup: Lookup | None
    """What the cache has to do with it; None: its model's answers are not kept."""
    found: Entry | None = None
    """The kept answer that came with its admission."""
    headers: tuple[tuple[bytes, bytes], ...] = ()
    attempt: float | None = None
    """When the attempt under way began, Unix seconds. None: none is."""
    is_local: bool = False
    """Admitted without Redis."""

    def note(self) -> Note:
        return Note(self.meter.note(time.time(), self.body), self.head.principal.counters.noted)


class Pipeline:
    """`directory` may be replaced at any time: a request keeps the one it began with.

    `reread` reads a key again whose org has changed and raises AuthenticationError where it is gone; `on_record` is
    told of each request that is over.
    """

    def __init__(
        self,
        *,
        directory: Directory,
        endpoints: Endpoints,
        engines: EngineClient,
        redis: Redis,
        settlement: Settlement,
        cache: AnswerCache,
        reread: Callable[[Principal, int], Awaitable[Principal]],
        on_record: Callable[[RequestRecord], None] = lambda record: None,
    ) -> None:
        self.directory = directory
        self.endpoints = endpoints
        self.in_flight = 0
        self._router = Router(endpoints)
        self._mirror = Mirror(self._router, engines, settlement, on_record)
        self.queues = Queues(endpoints, lambda: self.directory.config.queue, self._has_engine)
        self._engines = engines
        self._redis = redis
        self._settlement = settlement
        self._cache = cache
        self._reread = reread
        self._on_record = on_record
        self._note_heads = NoteHeads()
        self._local_limits = LocalLimits()
        self._counting = asyncio.Semaphore(COUNTED_AT_ONCE)
        self._to_count = 0
        # A loop's time is this clock's; asking the loop for it costs a system call to find the loop.
        self._now = time.monotonic

    async def call(self, head: Head, body: bytes) -> Reply:
        """Answer a request. Raises APIError while there is nothing of an answer yet."""
        directory = self.directory
        gateway = directory.config.gateway
        if self.in_flight >= gateway.max_in_flight:
            raise ServiceUnavailableError(
                "This gateway is at its limit of requests.", code="overloaded", headers={"retry-after": "1"}
            )
        request: AnyRequest = requests.decode(body, KINDS[head.operation])
        members = requests.members(body)
        route = self._resolve(directory, head, request)
        reserved = estimate(body, request)
        selection = self._router.begin(
            route, tokens=reserved.total, now=self._now(), request=request, members=members, headers=head.headers
        )
        served = selection.served
        lookup = self._cache.look(head, request, members, served)
        body = prepared(body, members, request, served, head.principal.limits)
        shows_usage = isinstance(request, Generation) and bool(
            request.stream_options and request.stream_options.include_usage
        )
        meter = Meter(head, served, request, route=route.name if route.is_named else "")
        call = _Call(head, meter, body, shows_usage, reserved, selection, lookup)
        self.in_flight += 1
        try:
            call.headers = await self._admit(call, gateway, lookup.redis_key if lookup else None)
        except BaseException:  # refused or cancelled: `_finish` will not take it off
            self.in_flight -= 1
            raise
        if call.found is not None:
            return self._replay(call, call.found)
        if route.mirror is not None:
            self._mirror.consider(head, route, request, body, reserved.total)
        is_stream = isinstance(request, Generation) and request.stream
        if not is_stream or not self.queues.must_wait(selection.served):
            return await self._answer(call, gateway)
        queue = directory.config.queue
        return await patiently(
            self._answer(call, gateway),
            after=queue.heartbeat_after_seconds,
            every=queue.heartbeat_seconds,
            headers=SSE_HEADERS + call.headers,
        )

    # resolve

    def _resolve(self, directory: Directory, head: Head, request: AnyRequest) -> Route:
        name = request.model
        route = directory.routes.get(name)
        if route is None and (holders := self.endpoints.serving(name)):  # an adapter that was loaded since
            served = directory.adapter(name, holders[0].model)
            route = Route.to(served, directory.config.gateway) if served else None
        if route is None:
            raise NotFoundError(
                f"The model '{name[:MAX_NAME]}' does not exist or you do not have access to it.",
                param="model",
                code="model_not_found",
            )
        allowed = head.principal.models
        if allowed is not None and not route.is_allowed(name, allowed):
            raise PermissionDeniedError(
                f"This key may not use the model '{name[:MAX_NAME]}'.", param="model", code="model_not_allowed"
            )
        return route

    # admit

    async def _admit(
        self, call: _Call, gateway: GatewayConfig, cache_key: str | None
    ) -> tuple[tuple[bytes, bytes], ...]:
        """One round trip. Returns the rate-limit headers of the answer."""
        principal = call.head.principal
        meter, head = call.meter, call.head
        counters = principal.counters
        noted = self._note_heads.of(principal, meter.served, head.operation)
        wanted = Reservation(
            head.request_id,
            counters,
            note_of(
                noted,
                head.request_id,
                head.started,
                stream=isinstance(meter.request, Generation) and bool(meter.request.stream),
            ),
            call.reserved.total,
            estimated_cost(call.reserved.prompt, call.reserved.output, meter.served.rates)
            if counters.has_budget
            else 0,
            self._settlement.lease_seconds,
            cache_key,
            most_waiting=gateway.max_waiting_records,
        )
        try:
            admitted = await admission.reserve(self._redis, wanted)
        except (RedisUnavailableError, RedisError) as error:
            if gateway.on_redis_down == "deny":
                raise limits_unavailable() from error
            admitted = self._local_limits.take(
                counters, wanted.tokens, wanted.money, share=gateway.redis_down_share, now=self._now()
            )
            if admitted.refused is not None:
                raise refusal_of(admitted) from error
            call.is_local = True
            return ()
        except asyncio.CancelledError:
            # The reservation may have been made; on one connection the release comes after it.
            self._settlement.spawn(self._release(wanted))
            raise
        if admitted.refused is not None:
            raise refusal_of(admitted)
        if admitted.revision != principal.revision:  # also smaller: a Redis that came back empty counts anew
            try:
                await self._reread(principal, admitted.revision)
            except BaseException:  # refused, or cancelled meanwhile
                self._settlement.spawn(self._release(wanted))
                raise
        if admitted.cached is not None and call.lookup is not None:
            call.found = call.lookup.read(admitted.cached, time.time())
            if call.found is None:  # it is older than this caller takes: as if there were none
                return await self._admit(call, gateway, None)
            return rate_headers(admitted)
        self._settlement.begin(principal.org, call.head.request_id, call.note)
        return rate_headers(admitted)

    async def _release(self, reservation: Reservation) -> None:
        try:
            await admission.release(self._redis, reservation)
        except (RedisUnavailableError, RedisError) as error:
            log.warning("a reservation could not be given back, it will expire: %s", error)

    # pick, call

    async def _answer(self, call: _Call, gateway: GatewayConfig) -> Reply:
        meter = call.meter
        deadline = self._now() + call.selection.route.total_seconds
        try:
            if call.lookup is not None:
                if (found := await call.lookup.recall(time.time())) is not None:
                    return self._replay(call, found)
                call.headers += call.lookup.headers
            answer = await self._open(call, gateway, deadline)
        except APIError as error:
            self._finish(call, "error", error)
            raise
        except asyncio.CancelledError:
            self._finish(call, "cancelled", None, http_status=CLIENT_CLOSED_REQUEST)
            raise
        except BaseException:  # a bug of ours: the request is over all the same, and leaves its record
            self._finish(call, "error", APIError("The gateway failed.", code="internal_error"))
            raise
        meter.first_token = time.time()
        if answer.stream is None:
            meter.read_answer(answer.parsed, answer.body)
            if call.lookup is not None:
                call.lookup.take(answer.body, answer.content_type)
            self._finish(call, "ok", None)
            return Reply(200, ((b"content-type", answer.content_type), *call.headers), answer.body)
        relay = Relay(
            answer.stream,
            meter,
            shows_usage=call.shows_usage,
            deadline=deadline,
            on_end=lambda status, error: self._finish(call, status, error, http_status=200),
            collector=call.lookup.collect() if call.lookup else None,
            spawn=self._settlement.spawn,
            resume=lambda lost: self._resume(call, gateway, deadline, lost),
        )
        return Reply(200, SSE_HEADERS + call.headers, stream=relay)

    def _replay(self, call: _Call, found: Entry) -> Reply:
        """No engine is asked: the request has its answer and is over."""
        assert call.lookup is not None  # noqa: S101  # where something was found, it was looked for
        now = time.time()
        self.in_flight -= 1
        self._settle(call, hit(call.meter.record("ok", now), found, now))
        return call.lookup.replay(found, now, shows_usage=call.shows_usage, headers=call.headers)

    async def _open(self, call: _Call, gateway: GatewayConfig, deadline: float) -> EngineAnswer:
        """The first endpoint that begins to answer; those that fail before it are left for another."""
        failure: APIError | None = None
        selection = call.selection
        waited_for: Served | None = None
        while True:
            served = selection.aim(self._now())
            if served is not waited_for:
                waited_for = served
                if self.queues.must_wait(served) and not await self._wait(call, served, deadline):
                    continue
            choice = selection.next(self._now())
            if choice is None:
                break
            endpoint = choice.endpoint
            _check_operation(endpoint, call.head.operation)
            self._begin_attempt(call, choice)
            body = for_endpoint(call.body, endpoint, choice.renamed)
            try:
                answer = await self._engines.open(
                    endpoint,
                    call.head.operation,
                    body,
                    _headers(call.head),
                    limit=deadline,
                    timeouts=choice.timeouts,
                )
            except APIError as error:
                self._end_attempt(call, error, time.time())
                failure = error
                now = self._now()
                if not selection.failed(choice, error, now) or now >= deadline:
                    break
            else:
                selection.succeeded(choice, self._now())
                return answer
        if failure is None:
            failure = EngineUnavailableError(
                f"No endpoint of the model '{call.meter.served.name}' is ready.",
                code="model_not_ready",
                headers={"retry-after": "5"},
            )
        if isinstance(failure, EngineUnavailableError):  # as long as nothing else was said: it may be one dropped call
            failure.headers.setdefault("retry-after", "1")
        raise failure

    async def _wait(self, call: _Call, served: Served, deadline: float) -> bool:
        """Until there is room. False: none came, and the selection has gone to another model."""
        principal = call.head.principal
        try:
            await self.queues.enter(
                served,
                team=principal.team,
                priority=principal.priority,
                tokens=call.reserved.total,
                until=deadline,
            )
        except (RateLimitError, ServiceUnavailableError) as error:
            if call.selection.refused(error):
                return False
            raise
        return True

    def _has_engine(self, model: str) -> bool:
        return any(each.name == model and each.engine is not None for each in self.directory.config.models)

    async def _resume(self, call: _Call, gateway: GatewayConfig, deadline: float, lost: Lost) -> Resumed | None:
        """Let another endpoint of the same model go on with the answer. None: nobody does, and the caller is told."""
        meter, members = call.meter, requests.members(call.body)
        origin, began = meter.endpoint, meter.engine_started
        request = meter.request
        if origin is None or not isinstance(request, Generation) or meter.resumed >= gateway.resumes:
            return None
        if not is_resumable(call.head.operation, members, request, lost.text):
            return None
        self._end_attempt(call, lost.error, time.time())
        tried = [origin]
        while len(tried) <= 1 + gateway.retries and self._now() < deadline:
            if (choice := call.selection.instead(tried, self._now())) is None:
                break
            endpoint = choice.endpoint
            tried.append(endpoint)
            self._begin_attempt(call, choice)
            meter.engine_started = began  # what an engine's seconds cost, the first one's cost as well
            model = endpoint.upstream_model or choice.served.name
            try:
                if (asked := await continue_at(self._engines, endpoint, model, members, request, lost)) is None:
                    self._end_attempt(call, None, time.time(), code="nothing_left")
                    break
                answer = await self._engines.open(
                    endpoint,
                    call.head.operation,
                    for_endpoint(asked.body, endpoint, choice.renamed),
                    _headers(call.head),
                    limit=deadline,
                    timeouts=choice.timeouts,
                )
            except APIError as error:
                self._end_attempt(call, error, time.time(), status=error.engine_status)
                continue
            if answer.stream is not None:
                call.selection.succeeded(choice, self._now())
                return Resumed(answer.stream, asked.tokens, asked.repeated)
            self._end_attempt(call, EngineError("The engine's answer is no stream."), time.time())
        meter.endpoint = origin  # it gave what there is
        return None

    def _begin_attempt(self, call: _Call, choice: Choice) -> None:
        call.attempt = call.meter.engine_started = time.time()
        call.meter.endpoint, call.meter.served = choice.endpoint, choice.served
        choice.endpoint.begin(call.reserved.total)

    def _end_attempt(
        self,
        call: _Call,
        error: APIError | None,
        now: float,
        *,
        code: str | None = None,
        status: int | None = None,
    ) -> None:
        endpoint = call.meter.endpoint
        if call.attempt is None or endpoint is None:
            return
        endpoint.end(call.reserved.total)
        self.queues.left(endpoint)
        is_begun = call.meter.first_token is not None
        if is_begun and isinstance(error, EngineError) and error.code != "request_timeout":
            call.selection.broke_off(endpoint, self._now())
        if status is None:
            status = 200 if is_begun else (error.engine_status if error else 0)
        code = error_code(error) if error else code
        call.meter.attempts.append(Attempt(endpoint.id, call.attempt, now, status, code))
        call.attempt = None

    # meter

    def _finish(self, call: _Call, status: Status, error: APIError | None, *, http_status: int | None = None) -> None:
        """The request is over: it leaves the counts and is settled, at once or when its tokens are counted."""
        self.in_flight -= 1
        if call.lookup is not None and status != "ok":
            call.lookup.give_up()
        meter, now = call.meter, time.time()
        self._end_attempt(call, error, now, code="cancelled" if status == "cancelled" else None)
        if http_status is None:
            http_status = error.status if error else 200
        code = error_code(error) if error else None
        if meter.usage is None and meter.first_token is not None and call.head.operation not in FREE:
            if meter.endpoint is not None and self._to_count < MOST_TO_COUNT:
                self._to_count += 1
                self._settlement.spawn(self._count_and_settle(call, meter.endpoint, status, now, http_status, code))
                return
            estimate_what_was_received(meter, call.body)
        self._settle(call, meter.record(status, now, http_status=http_status, error=code))

    async def _count_and_settle(
        self, call: _Call, endpoint: Endpoint, status: Status, ended: float, http_status: int, error: str | None
    ) -> None:
        """No usage came: the text received is counted, off the hot path."""
        try:
            async with self._counting:
                await count_what_was_received(self._engines, endpoint, call.meter, call.body)
        finally:  # estimated, if it must be; never unsettled
            self._to_count -= 1
            if call.meter.usage is None:
                estimate_what_was_received(call.meter, call.body)
            self._settle(call, call.meter.record(status, ended, http_status=http_status, error=error))

    def _settle(self, call: _Call, record: RequestRecord) -> None:
        counters = call.head.principal.counters
        if call.is_local:
            self._local_limits.give_back(counters, call.reserved.total - record.input_tokens - record.output_tokens)
        if call.lookup is not None:
            call.lookup.end(record)
        self._settlement.settle(record, counters)
        self._on_record(record)


def _check_operation(endpoint: Endpoint, operation: Operation) -> None:
    if endpoint.kind != "vllm" and operation in ONLY_VLLM:
        raise BadRequestError(
            f"The model '{endpoint.model}' is not served by vLLM, which alone can {operation.word}.",
            param="model",
            code="unsupported_operation",
        )
    if operation in GENERATING and endpoint.task == "embed":
        raise BadRequestError(
            f"The model '{endpoint.model}' makes embeddings; it does not chat or complete.",
            param="model",
            code="unsupported_model",
        )


def _headers(head: Head) -> tuple[tuple[bytes, bytes], ...]:
    """vLLM takes x-request-id for its own logs and ids, so one id is found in all of them."""
    return ((b"x-request-id", head.request_id.encode()), *head.headers)
