"""One request from its head to its record, in six steps: resolve, admit, recall, pick, call, meter.

Knows neither ASGI nor a socket. Until the first event of an answer another endpoint may be tried; after it, another may
resume the answer where that is sound; else the failure is an error event, never a silent end. However a request ends,
it is settled once. Pick and call are one loop (`attempts`); the meter starts at admission and ends in `closing`.
"""

import time
from collections.abc import Awaitable, Callable
from functools import partial

import msgspec

from quarterdeck.accounting.principal import Principal
from quarterdeck.accounting.settlement import Settlement
from quarterdeck.errors import APIError
from quarterdeck.inference.admission import Admission
from quarterdeck.inference.attempts import Attempts
from quarterdeck.inference.cache.answers import AnswerCache
from quarterdeck.inference.cache.entry import Entry
from quarterdeck.inference.call import FREE, Head, Reply
from quarterdeck.inference.call_state import Call
from quarterdeck.inference.capture.capture import CAPTURED, Capture, level_of
from quarterdeck.inference.closing import MAX_TO_COUNT, Closing
from quarterdeck.inference.endpoints.endpoint import Endpoints
from quarterdeck.inference.engine.client import EngineAnswer, EngineClient
from quarterdeck.inference.engine.stream import EngineStream
from quarterdeck.inference.estimation import estimate, structure_bytes, text_bytes
from quarterdeck.inference.gate import Gate
from quarterdeck.inference.learned_bounds import LearnedBounds
from quarterdeck.inference.media import check_media
from quarterdeck.inference.metering.record_templates import RecordTemplates
from quarterdeck.inference.mirror import MAX_RUNNING as MAX_MIRRORED
from quarterdeck.inference.mirror import Mirror
from quarterdeck.inference.prompts.execution import HEADER, PromptExecutor, PromptRequest
from quarterdeck.inference.routing.directory import Directory, Route, ServedModel
from quarterdeck.inference.routing.idle_capacity import check_idle
from quarterdeck.inference.routing.queueing import Queues
from quarterdeck.inference.routing.resolution import resolve
from quarterdeck.inference.routing.router import Router
from quarterdeck.inference.streaming.collector import Collects
from quarterdeck.inference.streaming.function_calls import with_function_call
from quarterdeck.inference.streaming.heartbeats import Comment, loading, waiting, with_heartbeats
from quarterdeck.inference.streaming.relay import Relay
from quarterdeck.net.asgi import too_large
from quarterdeck.net.redis import Redis
from quarterdeck.net.tasks import Spawn
from quarterdeck.protocol import sse
from quarterdeck.protocol.trace_context import OWN
from quarterdeck.record import RequestRecord
from quarterdeck.settings.config import GatewayConfig
from quarterdeck.settings.live import Live

LOADING_SECONDS = 0.5
"""A stream that waits for a starting model begins with a comment after this time: soon for a person, and late enough
that an immediate refusal keeps its status."""
LOADING_EVERY_SECONDS = 2.0
"""Between two of these comments, so that what they say is true."""
LARGE_BYTES = 64 * 1024
"""A larger whole answer holds its key's slot until the client has taken it. Others fit into a connection's buffers."""

MIB = 1024 * 1024


class Pipeline:
    """A request keeps the snapshot of `directory` that it started with.

    `reread` re-reads a key after its organisation's revision has changed. It raises AuthenticationError if the key was
    revoked.
    `on_record` is called with each settled record.
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
        prompts: PromptExecutor,
        reread: Callable[[Principal, int], Awaitable[Principal]],
        on_record: Callable[[RequestRecord], None] = lambda record: None,
        max_mirrored: int = MAX_MIRRORED,
        max_to_count: int = MAX_TO_COUNT,
    ) -> None:
        self._directory = directory
        self._endpoints = endpoints
        self.queues = Queues(endpoints, directory.select(lambda each: each.config.queue), self._has_engine)
        self.router = Router(endpoints)
        self._learned = LearnedBounds(endpoints)
        self._prompts = prompts
        self.templates = RecordTemplates()
        self._mirror = Mirror(self.router, engines, settlement, spawn, on_record, max_running=max_mirrored)
        self.gate = Gate(redis, settlement, spawn, self.templates, reread)
        self.attempts = Attempts(engines, endpoints, self.queues, self.gate.extend, self._is_configured)
        self._admission = Admission(self.gate, cache, endpoints, settlement, self.templates, self.attempts.count_prompt)
        self.closing = Closing(
            engines, self.attempts, self.gate, settlement, spawn, on_record, max_to_count=max_to_count
        )

    async def call(self, head: Head, body: bytes) -> Reply:
        """Answer a request. Raises APIError until the answer begins."""
        directory = self._directory.current
        gateway = directory.gateway
        if directory.traces_engines and head.trace is None:
            head = msgspec.structs.replace(head, trace=OWN)
        limit = gateway.max_body_mb * MIB
        if len(body) > limit and structure_bytes(body) > limit:
            raise too_large(limit, unread=False)
        request = self._prompts.decode(head.operation, body)
        if isinstance(request, PromptRequest):
            request = await self._prompts.render(head, request)
            body = request.body
        if len(body) > limit and text_bytes(request) > limit:
            raise too_large(limit, unread=False)
        route = resolve(directory, self._endpoints, request.parsed.model, head.principal)
        is_of_batch = head.principal.priority < 0
        if is_of_batch:
            check_idle(self._endpoints, route.models, directory.config.batches, time.time())
        check_media(request, gateway.media_domains)
        now, bounds = time.monotonic(), route.bounds
        if bounds.context is None:
            bounds = self._learned.of(route, now)
        reserved = estimate(request, bounds, head.principal.max_tokens)
        if route.bills_time and head.operation not in FREE:
            reserved = msgspec.structs.replace(reserved, engine_seconds=self.engine_seconds(route))
        selection = self.router.select(route, request, tokens=reserved.total, now=now, headers=head.headers)
        call = await self._admission.admit(gateway, head, request, reserved, selection, bounds)
        if is_of_batch:
            call.meter.price_share = directory.config.batches.price_share
        own = call.head.principal.content
        if own is not None or route.content is not None or directory.captures:
            content = directory.config.content
            level = level_of(content, own, route.content)
            if level != "off" and head.operation in CAPTURED:
                call.capture = Capture(level, content, request)
        if call.found is not None:
            return self._replay(call, call.found)
        self._mirror.consider(call)
        if not request.is_streaming:
            return await self._answer(call, gateway)
        comment: Comment = waiting
        if self.queues.must_wait(selection.served, is_streaming=True):
            queue = directory.config.queue
            after, every = queue.heartbeat_after_seconds, queue.heartbeat_seconds
            if self.queues.starting(selection.served) is not None:
                after, every = min(after, LOADING_SECONDS), min(every, LOADING_EVERY_SECONDS)
                comment = partial(self._comment_on, selection.served)
        elif gateway.prefill_heartbeat_seconds:
            after = every = gateway.prefill_heartbeat_seconds
        else:
            return await self._answer(call, gateway)
        headers = sse.HEADERS + call.headers
        answer = self._answer(call, gateway)
        return await with_heartbeats(answer, after=after, every=every, headers=headers, comment=comment)

    def _comment_on(self, served: ServedModel) -> bytes:
        """What a stream is sent while its model is being started."""
        status = self.queues.starting(served)
        return waiting() if status is None else loading(status)

    async def _answer(self, call: Call, gateway: GatewayConfig) -> Reply:
        """Recall, pick and call: from an identical request in flight, the semantic cache, or an engine."""
        deadline = time.monotonic() + call.selection.route.total_seconds
        try:
            if (lookup := call.lookup) is not None:
                if not lookup.lead():
                    found = await lookup.recall(time.time())
                    call.meter.recalled = time.time()
                    if found is not None:
                        return self._replay(call, found)
                call.headers += lookup.headers
            answer = await self.attempts.open(call, deadline)
        except BaseException as error:  # cancellation and bugs too: the call leaves its record and its places
            self.closing.fail(call, error)
            if isinstance(error, APIError) and call.request.prompt is not None:
                error.headers.setdefault(HEADER.decode(), call.request.prompt.text)
            raise
        call.meter.first_token = time.time()
        if call.weights and call.lookup is not None:
            call.lookup.check_weights(call.weights)
        if answer.stream is None:
            return self._whole_reply(call, answer)
        return self._streamed_reply(call, answer.stream, gateway, deadline)

    def _whole_reply(self, call: Call, answer: EngineAnswer) -> Reply:
        call.meter.take_answer(answer.parsed, answer.body)
        if call.lookup is not None:
            call.lookup.take(answer.body, answer.content_type)
        if call.capture is not None:
            call.capture.take(answer.body)
        on_end = None
        if len(answer.body) > LARGE_BYTES:
            on_end = self.closing.finish_large(call)
        else:
            self.closing.finish(call, "ok", None)
        headers = ((b"content-type", answer.content_type), *call.headers)
        reply = Reply(200, headers, answer.body, on_end=on_end)
        return with_function_call(reply) if call.request.calls_functions else reply

    def _streamed_reply(self, call: Call, stream: EngineStream, gateway: GatewayConfig, deadline: float) -> Reply:
        collector: Collects | None = call.lookup.collect() if call.lookup else None
        if call.capture is not None:
            collector = call.capture.collect(collector)
        relay = Relay(
            stream,
            call.meter,
            shows_usage=call.request.shows_usage,
            deadline=deadline,
            on_end=lambda status, error: self.closing.finish(call, status, error, http_status=200),
            collector=collector,
            resume=lambda lost: self.attempts.resume(call, gateway, deadline, lost),
        )
        reply = Reply(200, sse.HEADERS + call.headers, stream=relay)
        return with_function_call(reply) if call.request.calls_functions else reply

    def _replay(self, call: Call, found: Entry) -> Reply:
        """Answer from the cache; the call is over."""
        assert call.lookup is not None  # noqa: S101  # narrows the type: only a look-up finds an entry
        now = time.time()
        self.closing.finish_from_cache(call, found, now)
        reply = call.lookup.replay(found, now, shows_usage=call.request.shows_usage, headers=call.headers)
        return with_function_call(reply) if call.request.calls_functions else reply

    def engine_seconds(self, route: Route) -> float:
        """A request's share of an engine's time at most: until it times out, among the fewest that share one."""
        shared_by = [each.spec.max_running for served in route.models for each in self._endpoints.serving(served.name)]
        return route.total_seconds / min(shared_by, default=1)

    def _has_engine(self, model: str) -> bool:
        return any(each.name == model and each.engine is not None for each in self._directory.current.config.models)

    def _is_configured(self, model: str) -> bool:
        return any(each.name == model for each in self._directory.current.config.models)
