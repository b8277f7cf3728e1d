"""An audio or image request from its head to its record: resolve, admit, pick, call, meter, as for texts (`inference/
pipeline`), with the same limits, budgets, endpoints, retries and records. Answers are not cached, captured or mirrored.
"""

import time
from collections.abc import Awaitable, Callable
from functools import partial

import msgspec

from quarterdeck.accounting.settlement import Settlement
from quarterdeck.errors import APIError
from quarterdeck.inference.attempts import Attempts
from quarterdeck.inference.call import Head, Operation, Reply
from quarterdeck.inference.call_state import Call
from quarterdeck.inference.closing import Closing
from quarterdeck.inference.endpoints.endpoint import Endpoints
from quarterdeck.inference.estimation import Estimate
from quarterdeck.inference.gate import Gate
from quarterdeck.inference.media import is_allowed_url
from quarterdeck.inference.media_calls.capability import serving_route
from quarterdeck.inference.media_calls.engine import MediaAnswer, MediaEngines
from quarterdeck.inference.media_calls.estimation import estimate_media, units_at_begin
from quarterdeck.inference.media_calls.metering import take_missing, take_report
from quarterdeck.inference.media_calls.relay import MediaRelay
from quarterdeck.inference.media_calls.request import MediaRequest
from quarterdeck.inference.metering.meter import Meter
from quarterdeck.inference.metering.record_templates import RecordTemplates
from quarterdeck.inference.pipeline import LARGE_BYTES
from quarterdeck.inference.request import InferenceRequest
from quarterdeck.inference.routing.directory import Directory, Route, ServedModel
from quarterdeck.inference.routing.router import Router
from quarterdeck.inference.routing.selection import Choice, Selection
from quarterdeck.protocol import sse
from quarterdeck.protocol.media_answers import TranscriptEvents
from quarterdeck.protocol.media_requests import MediaFacts
from quarterdeck.protocol.trace_context import OWN
from quarterdeck.record import Status
from quarterdeck.settings.config import GatewayConfig
from quarterdeck.settings.live import Live

NOSNIFF = (b"x-content-type-options", b"nosniff")
"""The engine chooses the content type, and a browser must not choose another."""
SPEECH_TO_TEXT = (Operation.AUDIO_TRANSCRIPTIONS, Operation.AUDIO_TRANSLATIONS)


class MediaPipeline:
    """`engine_seconds`: a request's share of an engine's time at most, on a route."""

    def __init__(
        self,
        *,
        directory: Live[Directory],
        endpoints: Endpoints,
        engines: MediaEngines,
        router: Router,
        gate: Gate,
        attempts: Attempts,
        closing: Closing,
        settlement: Settlement,
        templates: RecordTemplates,
        engine_seconds: Callable[[Route], float],
    ) -> None:
        self._directory = directory
        self._endpoints = endpoints
        self._engines = engines
        self._router = router
        self._gate = gate
        self._attempts = attempts
        self._closing = closing
        self._settlement = settlement
        self._templates = templates
        self._engine_seconds = engine_seconds

    @property
    def directory(self) -> Directory:
        return self._directory.current

    def is_allowed_url(self, url: str) -> bool:
        """Whether an engine may fetch it."""
        return is_allowed_url(url, self._directory.current.gateway.media_domains)

    async def call(self, head: Head, wanted: MediaRequest) -> Reply:
        """Answer a request. Raises APIError until the answer begins."""
        directory = self._directory.current
        gateway = directory.gateway
        if directory.traces_engines and head.trace is None:
            head = msgspec.structs.replace(head, trace=OWN)
        route = serving_route(directory, self._endpoints, wanted.model, wanted.word, head.principal)
        reserved = estimate_media(wanted.facts, route.bounds, route.models)
        if route.bills_time:
            reserved = msgspec.structs.replace(reserved, engine_seconds=self._engine_seconds(route))
        request = wanted.for_routing()
        selection = self._router.select(
            route, request, tokens=reserved.total, now=time.monotonic(), headers=head.headers
        )
        call = await self._admit(gateway, head, request, reserved, selection)
        call.opens = partial(self._open, call, wanted)
        answer = await self._opened(call)
        call.meter.first_token = time.time()
        call.meter.units, call.meter.usage_source = units_at_begin(wanted.facts, call.reserved)
        if answer.source is None:
            return self._whole_reply(call, wanted.facts, answer)
        call.meter.is_passed_on = True
        transcript = TranscriptEvents() if wanted.operation in SPEECH_TO_TEXT and answer.source.is_events else None
        has_usage = answer.source.is_events  # audio has no place for it
        relay = MediaRelay(
            answer.source,
            call.meter,
            on_end=lambda status, error: self._finish(call, wanted.facts, status, error, has_usage=has_usage),
            transcript=transcript,
        )
        headers = sse.HEADERS if answer.source.is_events else ((b"content-type", answer.content_type), NOSNIFF)
        return Reply(200, (*headers, *call.headers), stream=relay)

    async def _admit(
        self,
        gateway: GatewayConfig,
        head: Head,
        request: InferenceRequest,
        reserved: Estimate,
        selection: Selection,
    ) -> Call:
        """Raises APIError where the request is refused. The reservation is renewed until the call is settled."""
        served, route = selection.served, selection.route
        admitted = await self._gate.admit(
            head, request, served, reserved, lookup=None, gateway=gateway, body=b"", count_prompt=_uncounted
        )
        if admitted.principal is not head.principal:
            head = msgspec.structs.replace(head, principal=admitted.principal)
        reserved = admitted.reserved or reserved
        meter = Meter(
            head,
            served,
            request.parsed,
            route=route.name if route.is_named else "",
            templates=self._templates,
            reserved=reserved,
            is_limited=True,
            admitted=time.time(),
        )
        call = Call(
            head,
            request,
            b"",
            meter,
            reserved,
            selection,
            None,
            None,
            admitted.headers,
            admitted.is_local,
            held=admitted.held,
        )
        if not call.is_local:
            self._settlement.begin(head.principal.org, head.request_id, call.note)
        return call

    async def _opened(self, call: Call) -> MediaAnswer:
        """The answer of the first endpoint that begins one. However this fails, the call is settled."""
        deadline = time.monotonic() + call.selection.route.total_seconds
        try:
            answer = await self._attempts.open(call, deadline)
            assert isinstance(answer, MediaAnswer)  # noqa: S101  # narrows the type: `_open` made it
            return answer
        except BaseException as error:  # cancellation and bugs too: the call leaves its record and its places
            self._closing.fail(call, error)
            raise

    def _open(self, call: Call, wanted: MediaRequest, choice: Choice, deadline: float) -> Awaitable[MediaAnswer]:
        endpoint, head = choice.endpoint, call.head
        name = endpoint.spec.name_of(choice.served.name) or choice.served.name
        content_type, body = wanted.body.encode(endpoint.spec, name)
        # Others are shown no traces: they may be someone else's.
        is_traced = head.trace is not None and endpoint.spec.kind == "vllm"
        return self._engines.open(
            endpoint,
            head.operation.path,
            content_type,
            body,
            head.traced_headers(len(call.meter.attempts)) if is_traced else head.engine_headers(),
            limit=deadline,
            timeouts=choice.timeouts,
            is_stream=wanted.facts.is_streaming,
        )

    def _whole_reply(self, call: Call, asked: MediaFacts, answer: MediaAnswer) -> Reply:
        meter = call.meter
        if answer.facts is not None:
            found = answer.facts.reported
            take_report(meter, found)
            if found.images is not None and meter.units is not None and meter.units.images:
                meter.units = msgspec.structs.replace(meter.units, images=found.images)
        take_missing(meter, asked, is_estimated=answer.facts is None)
        on_end = None
        if len(answer.body) > LARGE_BYTES:
            on_end = self._closing.finish_large(call)
        else:
            self._closing.finish(call, "ok", None)
        return Reply(200, ((b"content-type", answer.content_type), NOSNIFF, *call.headers), answer.body, on_end=on_end)

    def _finish(
        self, call: Call, asked: MediaFacts, status: Status, error: APIError | None, *, has_usage: bool
    ) -> None:
        take_missing(call.meter, asked, is_estimated=status != "ok" or not has_usage)
        self._closing.finish(call, status, error, http_status=200)


async def _uncounted(request: InferenceRequest, served: ServedModel, body: bytes) -> int | None:
    """No tokenizer counts audio or pictures."""
    return None
