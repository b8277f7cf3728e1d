"""Watches one request and makes its record.

On the hot path it takes times and looks for byte patterns; what has a price in microseconds (parsing, counting) waits
until the request is over.
"""

from decimal import Decimal

import msgspec

from quarterdeck.errors import APIError
from quarterdeck.inference.calls import Head
from quarterdeck.inference.directory import Served
from quarterdeck.inference.endpoints import Endpoint
from quarterdeck.inference.pricing import cost
from quarterdeck.inference.transcript import Transcript
from quarterdeck.protocol.requests import AnyRequest, ChatCompletion, Generation
from quarterdeck.protocol.usage import Answer, Usage, usage_of
from quarterdeck.record import Attempt, RequestRecord, Status, UsageSource

NOTHING = Decimal(0)
NO_TOKENS = Usage(0, 0, 0, 0)
CHARACTERS_PER_TOKEN = 4
"""The usual rule of thumb, where nobody can count."""
MAX_TEXT = 512
"""Characters kept of what a caller or an engine may choose freely: a record travels through Redis' memory."""


class Meter(msgspec.Struct, eq=False):
    """What is known of a request so far. Times are Unix seconds."""

    head: Head
    served: Served
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
    """The route's name, where it came by one."""

    def read_answer(self, answer: Answer | None, body: bytes) -> None:
        """Take usage, id and finish reason from a whole answer."""
        if answer is None:
            return
        self.response_id = answer.id
        if answer.choices:
            self.finish_reason = answer.choices[0].finish_reason
        self.take_usage(usage_of(answer.usage))
        if self.usage is None and isinstance(self.request, Generation):  # somebody will have to count
            self.transcript = Transcript()
            self.transcript.add_answer(body)

    def take_usage(self, usage: Usage | None) -> None:
        if usage is not None:
            self.usage, self.usage_source = usage, "engine"

    def note(self, now: float, body: bytes) -> RequestRecord:
        """The record as it would be if the gateway died now; `body` is the request's. Tokens are a guess until the
        engine has counted them: it costs nothing, and prefill is billed once a first byte came."""
        seen = None
        if self.usage is None and self.first_token is not None:
            seen = Usage(estimated(len(body)), 0, self.transcript.tokens_seen() if self.transcript else 0, 0)
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
        """The record as of `now`; `seen` is a guess of the usage where nobody has counted it."""
        head, request, price = self.head, self.request, self.served.price
        usage = self.usage or seen or NO_TOKENS
        generation = request if isinstance(request, Generation) else None
        endpoint = self.endpoint
        return RequestRecord(
            id=head.request_id,
            org=head.principal.org,
            team=head.principal.team,
            key=head.principal.key,
            key_name=head.principal.name,
            operation=head.operation.word,
            model=self.served.name,
            route=self.route,
            priority=head.principal.priority,
            tags=head.principal.tags,
            endpoint=endpoint.id if endpoint else "",
            stream=bool(generation and generation.stream),
            started=head.started,
            first_token=self.first_token,
            ended=now,
            status=status,
            http_status=http_status,
            error_code=error,
            finish_reason=_shortened(self.finish_reason),
            response_id=_shortened(self.response_id),
            input_tokens=usage.input,
            cached_tokens=usage.cached,
            output_tokens=usage.output,
            reasoning_tokens=usage.reasoning,
            usage_source="estimated" if seen else self.usage_source,
            price_version=self.served.price_version,
            price_input=price.input,
            price_cached=price.cached,
            price_output=price.output,
            cost=cost(
                usage,
                self.served.rates,
                engine_seconds=now - self.engine_started if self.engine_started else 0.0,
                shared_by=endpoint.max_running if endpoint else 1,
            )
            if self.engine_started
            else NOTHING,
            user=_shortened(request.safety_identifier or request.user),
            session=_shortened(_session(request)),
            max_tokens=_max_tokens(request),
            temperature=generation.temperature if generation else None,
            top_p=generation.top_p if generation else None,
            seed=generation.seed if generation else None,
            attempts=tuple(self.attempts),
            resumed=self.resumed,
        )


def estimated(characters: int) -> int:
    """Tokens of a text of so many characters, when nobody can count them."""
    return -(-characters // CHARACTERS_PER_TOKEN)


def error_code(error: APIError) -> str:
    return error.code or error.type


def _shortened(text: str | None) -> str | None:
    return text if text is None or len(text) <= MAX_TEXT else text[:MAX_TEXT]


def _session(request: AnyRequest) -> str | None:
    value = request.metadata.get("session_id") if request.metadata else None
    return value if isinstance(value, str) else None


def _max_tokens(request: AnyRequest) -> int | None:
    if isinstance(request, ChatCompletion) and request.max_completion_tokens is not None:
        return request.max_completion_tokens
    return request.max_tokens if isinstance(request, Generation) else None
