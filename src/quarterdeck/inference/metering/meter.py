"""Collects what is known of a request and makes its record.

On the hot path it only takes timestamps and values that others found. Parsing and token counting wait until the request
has ended.
"""

from decimal import Decimal

import msgspec

from quarterdeck.accounting.pricing import NO_TOKENS, cost, share_of
from quarterdeck.accounting.units import Units
from quarterdeck.errors import APIError
from quarterdeck.inference.call import FREE, Head
from quarterdeck.inference.endpoints.endpoint import Endpoint
from quarterdeck.inference.estimation import Estimate
from quarterdeck.inference.metering.caller_trace import caller_trace, session_of, user_of
from quarterdeck.inference.metering.record_templates import RecordTemplates
from quarterdeck.inference.metering.transcript import Transcript
from quarterdeck.inference.request import PromptUse
from quarterdeck.inference.routing.directory import ServedModel
from quarterdeck.protocol.requests import AnyRequest, ChatCompletionRequest, GenerationRequest
from quarterdeck.protocol.usage import ParsedAnswer, Usage, parse_usage
from quarterdeck.record import Attempt, RequestRecord, Status, UsageSource

MAX_TEXT = 512
"""Characters kept of strings that clients and engines choose: records are held in Redis' memory."""


class Meter(msgspec.Struct, eq=False):
    """What is known of a request so far. Times are Unix seconds."""

    head: Head
    served: ServedModel
    request: AnyRequest
    first_token: float | None = None
    engine_started: float = 0.0
    endpoint: Endpoint | None = None
    attempts: list[Attempt] = msgspec.field(default_factory=list)
    usage: Usage | None = None
    usage_source: UsageSource = "none"
    finish_reason: str | None = None
    response_id: str | None = None
    transcript: Transcript | None = None
    resumed: int = 0
    route: str = ""
    """The name of the route that the request was sent to. Empty: a model's name."""
    reserved: Estimate | None = None
    """What was reserved for it."""
    is_limited: bool = False
    """The answer can have no more tokens than `reserved` says: the request, the key or the model's context limits it,
    or the endpoint was sent that limit."""
    prompt: PromptUse | None = None
    """The prompt that the request was rendered from."""
    units: Units | None = None
    """Of an audio or image request whose answer has begun."""
    is_passed_on: bool = False
    """Its answer is sent as it arrives."""
    price_share: Decimal | None = None
    """What it costs, as a share of the price. None: all."""
    admitted: float | None = None
    recalled: float | None = None
    queued: float | None = None
    """As in the record."""
    templates: RecordTemplates = msgspec.field(default_factory=RecordTemplates)

    def take_answer(self, answer: ParsedAnswer | None, body: bytes) -> None:
        """Take usage, id and finish reason from a complete answer."""
        if answer is None:
            return
        self.response_id = answer.id
        if answer.choices:
            self.finish_reason = answer.choices[0].finish_reason
        self.take_usage(parse_usage(answer.usage))
        if self.usage is None and isinstance(self.request, GenerationRequest):
            # Its tokens will be counted from the text.
            self.transcript = Transcript()
            self.transcript.add_answer(body)

    def take_usage(self, usage: Usage | None) -> None:
        if usage is not None:
            self.usage, self.usage_source = usage, "engine"

    def drop_stale_usage(self) -> None:
        """Forget a usage that a stream stated before its last tokens: some servers send one with the first event, too.
        Called where the stream has not come to its end."""
        transcript = self.transcript
        if self.usage is None or transcript is None:
            return
        transcript.text()
        if max(transcript.tokens_seen(), transcript.tokens_listed()) > self.usage.output:
            self.usage, self.usage_source = None, "none"

    @property
    def likely_prompt(self) -> int:
        """The prompt's tokens, estimated."""
        return self.reserved.prompt if self.reserved is not None else 0

    def bounded(self, prompt: int, output: int) -> Usage:
        """A usage that the gateway counted or estimated itself: no more than the request could have."""
        if (reserved := self.reserved) is not None:
            prompt = min(prompt, reserved.most_prompt)
            if self.is_limited:
                output = min(output, reserved.most_output)
        return Usage(prompt, 0, output, 0)

    def note(self, now: float) -> RequestRecord:
        """The record if the gateway died now. Tokens are estimated until the engine reports
        them, without parsing anything; the prompt is billed once the answer has begun."""
        seen = None
        if self.usage is None and self.first_token is not None:
            seen = self.bounded(self.likely_prompt, self.transcript.tokens_seen() if self.transcript else 0)
        return self.record("lost", now, http_status=0, seen=seen)

    def record(
        self,
        status: Status,
        now: float,
        *,
        http_status: int = 200,
        error: str | None = None,
        seen: Usage | None = None,
    ) -> RequestRecord:
        """The record as of `now`. `seen` is an estimate, used where no usage is known."""
        head, request, endpoint = self.head, self.request, self.endpoint
        record = self.templates.get(head.principal, self.served, head.operation).record()
        record.id, record.started, record.ended = head.request_id, head.started, now
        record.first_token, record.status, record.http_status = self.first_token, status, http_status
        if error is not None:
            record.error_code = error
        if self.finish_reason is not None:
            record.finish_reason = self.finish_reason[:MAX_TEXT]
        if self.response_id is not None:
            record.response_id = self.response_id[:MAX_TEXT]
        if head.parent is not None:
            record.parent = head.parent
        if self.route:
            record.route = self.route
        if self.resumed:
            record.resumed = self.resumed
        record.attempts = tuple(self.attempts)
        usage = self.usage or seen
        if usage is not None:
            record.input_tokens, record.cached_tokens = usage.input, usage.cached
            record.output_tokens, record.reasoning_tokens = usage.output, usage.reasoning
        record.usage_source = "estimated" if seen else self.usage_source
        if (units := self.units) is not None:
            record.audio_ms, record.characters, record.images = units.audio_ms, units.characters, units.images
            record.stream = self.is_passed_on
        if endpoint is not None:
            record.endpoint = endpoint.id
        if self.engine_started:
            rates, seconds, shared_by = self.served.rates, 0.0, 1
            if rates.gpu_hour and head.operation not in FREE:
                seconds, shared_by = now - self.engine_started, endpoint.spec.max_running if endpoint else 1
                if self.reserved is not None and (most := self.reserved.engine_seconds):
                    seconds = min(seconds, most * shared_by)  # budgets hold no more
            tokens = usage or NO_TOKENS
            record.cost = cost(tokens, rates, engine_seconds=seconds, shared_by=shared_by, units=self.units)
            if self.price_share is not None:
                record.cost = share_of(record.cost, self.price_share)
        if (prompt := self.prompt) is not None:
            record.prompt, record.prompt_version, record.prompt_label = prompt.name, prompt.version, prompt.label
        record.admitted = self.admitted
        if self.queued is not None:
            record.queued = self.queued
        if self.recalled is not None:
            record.recalled = self.recalled
        if user := request.safety_identifier or request.user:
            record.user = user[:MAX_TEXT]
        if (metadata := request.metadata) or head.trace is not None:
            record.trace = caller_trace(head.trace, metadata)
        if metadata:
            if session := session_of(metadata):
                record.session = session[:MAX_TEXT]
            if user := user_of(metadata):
                record.user = user[:MAX_TEXT]
        if isinstance(request, GenerationRequest):
            record.stream, record.max_tokens = bool(request.stream), _max_tokens(request)
            record.temperature, record.top_p, record.seed = request.temperature, request.top_p, request.seed
        return record


def error_code(error: APIError) -> str:
    return error.code or error.type


def _max_tokens(request: GenerationRequest) -> int | None:
    if isinstance(request, ChatCompletionRequest) and request.max_completion_tokens is not None:
        return request.max_completion_tokens
    return request.max_tokens
