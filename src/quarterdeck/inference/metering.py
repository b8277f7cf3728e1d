"""Watches one request and makes its record.

On the hot path it takes times and looks for byte patterns; what has a price in microseconds (parsing, counting) waits
until the request is over.
"""

from dataclasses import dataclass, field
from decimal import Decimal

from quarterdeck.errors import APIError
from quarterdeck.inference.calls import Head
from quarterdeck.inference.directory import Served
from quarterdeck.inference.endpoints import Endpoint
from quarterdeck.inference.pricing import cost
from quarterdeck.inference.transcript import Transcript
from quarterdeck.protocol import sse
from quarterdeck.protocol.requests import AnyRequest, ChatCompletion, Generation
from quarterdeck.protocol.usage import Answer, Usage, usage_of
from quarterdeck.record import Attempt, RequestRecord, Status, UsageSource

NOTHING = Decimal(0)
NO_TOKENS = Usage(0, 0, 0, 0)
CHARACTERS_PER_TOKEN = 4
"""The usual rule of thumb, where nobody can count."""
MAX_TEXT = 512
"""Characters kept of what a caller or an engine may choose freely: a record travels through Redis' memory."""
FINISH = (b'"finish_reason":"', b'"finish_reason": "')
"""As compact JSON and Python's default write it; inside a text the quotes would be escaped."""


@dataclass(slots=True)
class Meter:
    """What is known of a request so far. Times are Unix seconds."""

    head: Head
    served: Served
    request: AnyRequest
    first_token: float | None = None
    engine_started: float = 0.0
    endpoint: Endpoint | None = None
    attempts: list[Attempt] = field(default_factory=list)
    usage: Usage | None = None
    usage_source: UsageSource = "none"
    finish_reason: str | None = None
    response_id: str | None = None
    transcript: Transcript | None = None

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
            price_cached=price.input if price.cached_input is None else price.cached_input,
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
        )


class StreamTap:
    """Looks at each piece of a stream on its way: usage, finish reason, the end, errors inside a 200."""

    __slots__ = ("_meter", "_shows_usage", "error", "is_broken", "is_done")

    def __init__(self, meter: Meter, *, shows_usage: bool) -> None:
        self._meter = meter
        self._shows_usage = shows_usage
        meter.transcript = Transcript()
        self.is_done = False
        """`[DONE]` has come."""
        self.error: bytes | None = None
        """The data of an error event, if one has come; nothing after it is passed on."""
        self.is_broken = False
        """Something has come that no client can read; it and what follows is not passed on."""

    def look(self, whole: bytes) -> bytes:
        """Take whole events, return those that the client shall see."""
        meter = self._meter
        if sse.may_hold_error(whole):
            whole = self._until_error(whole)
        if (end := sse.end_of_done(whole)) >= 0:
            self.is_done = True
            whole = whole[:end]
        if sse.may_hold_garbage(whole) and (garbage := sse.garbage_at(whole)) >= 0:
            self.is_broken, self.is_done = True, False
            whole = whole[:garbage]
        for pattern in FINISH:
            if (finish := whole.rfind(pattern)) >= 0:
                finish += len(pattern)
                meter.finish_reason = whole[finish : whole.find(b'"', finish)].decode("utf-8", "replace")
        if sse.usage_before(whole, len(whole)) >= 0:
            whole = self._take_usage(whole)
        assert meter.transcript is not None  # noqa: S101  # set in __init__
        meter.transcript.add(whole)
        return whole

    def _until_error(self, whole: bytes) -> bytes:
        """The events before the first that is an error; all of them where none is."""
        start = 0
        for event in sse.events(whole):
            if b'"error"' in event:
                chunk = sse.parse(event)
                if chunk is not None and chunk.get("error"):
                    self.error = sse.data(event)
                    return whole[:start]
            start += len(event)
        return whole

    def _take_usage(self, whole: bytes) -> bytes:
        """Read the usage, the last one if there are several; an event that has nothing but that is not for a client who
        didn't ask."""
        meter, end, is_read = self._meter, len(whole), False
        while (at := sse.usage_before(whole, end)) >= 0:
            end, after = sse.bounds(whole, at)
            chunk = sse.parse(whole[end:after])
            if chunk is None or not chunk.get("usage"):
                continue
            choices = chunk.get("choices")
            if not is_read:
                is_read = True
                meter.take_usage(usage_of(chunk["usage"]))
                if isinstance(chunk.get("id"), str):
                    meter.response_id = chunk["id"]
            if not choices and not self._shows_usage:
                whole = whole[:end] + whole[after:]
        return whole


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
