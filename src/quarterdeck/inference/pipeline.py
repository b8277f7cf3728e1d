"""One request from its head to its record: resolve, admit, recall, pick, call, meter.

Knows neither ASGI nor a socket. Until an endpoint's first event is in hand another may be tried; after it another may
go on with the answer, where that is sound; else a failure is a typed event, never a silent end. However a request ends,
it is settled once. The steps stand beside: `resolution`, `gate`, `cache`, `routing` and `attempts`, `relay`, `closing`.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable

from quarterdeck.accounting.principal import Principal
from quarterdeck.accounting.settlement import Settlement
from quarterdeck.errors import APIError
from quarterdeck.inference.attempts import Attempts
from quarterdeck.inference.cache.answers import AnswerCache
from quarterdeck.inference.cache.entry import Entry
from quarterdeck.inference.call import CLIENT_CLOSED_REQUEST, Head, Operation, Reply
from quarterdeck.inference.call_state import Call
from quarterdeck.inference.closing import Closing
from quarterdeck.inference.endpoints.sources import Endpoints
from quarterdeck.inference.engine.client import EngineAnswer, EngineClient
from quarterdeck.inference.gate import Gate
from quarterdeck.inference.media import refuse_addresses
from quarterdeck.inference.metering.meter import Meter
from quarterdeck.inference.metering.record_templates import Forms
from quarterdeck.inference.mirror import Mirror
from quarterdeck.inference.preparation import estimate, prepared
from quarterdeck.inference.routing.directory import Directory
from quarterdeck.inference.routing.queueing import Queues
from quarterdeck.inference.routing.resolution import resolve
from quarterdeck.inference.routing.router import Router
from quarterdeck.inference.streaming.heartbeats import with_heartbeats
from quarterdeck.inference.streaming.relay import Relay
from quarterdeck.net.redis import Redis
from quarterdeck.net.tasks import Spawn
from quarterdeck.protocol import requests, sse
from quarterdeck.protocol.requests import AnyRequest, Generation
from quarterdeck.record import RequestRecord
from quarterdeck.settings.config import GatewayConfig
from quarterdeck.settings.live import Live

KINDS: dict[Operation, type[AnyRequest]] = {
    Operation.CHAT: requests.ChatCompletion,
    Operation.COMPLETIONS: requests.Completion,
    Operation.EMBEDDINGS: requests.Embedding,
    Operation.TOKENIZE: requests.Tokenize,
    Operation.DETOKENIZE: requests.Detokenize,
    Operation.SCORE: requests.Score,
}


class Pipeline:
    """A request keeps the snapshot of `directory` that it started with.

    `reread` reads a key again whose org has changed and raises AuthenticationError where it is gone; `on_record` is
    told of each request that is over.
    """

    def __init__(
        self,
        *,
        directory: Live[Directory],
        endpoints: Endpoints,
        engines: EngineClient,
        redis: Redis,
        settlement: Settlement,
        spawn: Spawn,
        cache: AnswerCache,
        reread: Callable[[Principal, int], Awaitable[Principal]],
        on_record: Callable[[RequestRecord], None] = lambda record: None,
    ) -> None:
        self._directory = directory
        self.endpoints = endpoints
        self.queues = Queues(endpoints, directory.select(lambda each: each.config.queue), self._has_engine)
        self._cache = cache
        self._settlement = settlement
        self._forms = Forms()
        self.router = Router(endpoints)
        self._mirror = Mirror(self.router, engines, settlement, spawn, on_record)
        self.gate = Gate(redis, settlement, spawn, reread)
        self._attempts = Attempts(engines, self.queues)
        self._closing = Closing(engines, self._attempts, self.gate, settlement, spawn, on_record)

    async def call(self, head: Head, body: bytes) -> Reply:
        """Answer a request. Raises APIError while there is nothing of an answer yet."""
        directory = self._directory.current
        gateway = directory.config.gateway
        request: AnyRequest = requests.decode(body, KINDS[head.operation])
        members = requests.members(body)
        route = resolve(directory, self.endpoints, request.model, head.principal)
        refuse_addresses(request, gateway.media_domains)
        reserved = estimate(body, request)
        selection = self.router.begin(
            route, tokens=reserved.total, now=time.monotonic(), request=request, members=members, headers=head.headers
        )
        served = selection.served
        lookup = self._cache.look(head, request, members, served)
        body = prepared(body, members, request, served, head.principal.limits)
        meter = Meter(head, served, request, route=route.name if route.is_named else "", forms=self._forms)
        is_stream = isinstance(request, Generation) and bool(request.stream)
        call = Call(head, meter, body, reserved, selection, lookup, is_stream)
        call.headers = await self.gate.admit(call, gateway)
        if call.found is not None:
            return self._replay(call, call.found)
        if route.mirror is not None:
            self._mirror.consider(head, route, request, body, reserved.total)
        if not call.is_stream or not self.queues.must_wait(served):
            return await self._answer(call, gateway)
        queue = directory.config.queue
        return await with_heartbeats(
            self._answer(call, gateway),
            after=queue.heartbeat_after_seconds,
            every=queue.heartbeat_seconds,
            headers=sse.HEADERS + call.headers,
        )

    async def _answer(self, call: Call, gateway: GatewayConfig) -> Reply:
        """From an equal request's answer, or from an engine."""
        deadline = time.monotonic() + call.selection.route.total_seconds
        try:
            if (lookup := call.lookup) is not None:
                if not lookup.lead() and (found := await lookup.recall(time.time())) is not None:
                    return self._replay(call, found)
                call.headers += lookup.headers
            answer = await self._attempts.open(call, deadline)
        except APIError as error:
            self._closing.finish(call, "error", error)
            raise
        except asyncio.CancelledError:
            self._closing.finish(call, "cancelled", None, http_status=CLIENT_CLOSED_REQUEST)
            raise
        except BaseException:  # a bug of ours: the request is over all the same, and leaves its record
            self._closing.finish(call, "error", APIError("The gateway failed.", code="internal_error"))
            raise
        call.meter.first_token = time.time()
        if answer.stream is None:
            return self._whole(call, answer)
        relay = Relay(
            answer.stream,
            call.meter,
            shows_usage=call.shows_usage,
            deadline=deadline,
            on_end=lambda status, error: self._closing.finish(call, status, error, http_status=200),
            collector=call.lookup.collect() if call.lookup else None,
            resume=lambda lost: self._attempts.go_on(call, gateway, deadline, lost),
        )
        return Reply(200, sse.HEADERS + call.headers, stream=relay)

    def _whole(self, call: Call, answer: EngineAnswer) -> Reply:
        call.meter.read_answer(answer.parsed, answer.body)
        if call.lookup is not None:
            call.lookup.take(answer.body, answer.content_type)
        self._closing.finish(call, "ok", None)
        return Reply(200, ((b"content-type", answer.content_type), *call.headers), answer.body)

    def _replay(self, call: Call, found: Entry) -> Reply:
        """No engine is asked: the request has its answer and is over."""
        assert call.lookup is not None  # noqa: S101  # where something was found, it was looked for
        now = time.time()
        self._closing.finish_with(call, found, now)
        return call.lookup.replay(found, now, shows_usage=call.shows_usage, headers=call.headers)

    def _has_engine(self, model: str) -> bool:
        return any(each.name == model and each.engine is not None for each in self._directory.current.config.models)
