"""Record → trace: the spans of one request, encoded as OTLP. Pure but for a memory of encoded attributes.

    POST /v1/chat/completions          the request, from its arrival to its end
    ├── prompt greeting                its prompt version was rendered
    ├── admission                      until limits and budgets were reserved
    ├── cache                          look-up of a stored answer
    ├── queue                          it waited for a place at an endpoint
    └── chat smollm2                   the model's call: a generation, with usage and cost
        ├── attempt smollm2#0          each endpoint that was tried …
        └── attempt smollm2#1          … or continued the answer

User, session, tags, trace name and metadata are on every span: Langfuse keeps a row for each span and merges nothing.
Only the call has usage and cost, so that a sum over spans is the ledger's.
"""

from collections.abc import Sequence

from quarterdeck.content import Content
from quarterdeck.record import Attempt, CallerTrace, RequestRecord
from quarterdeck.telemetry.gen_ai import OPERATIONS
from quarterdeck.telemetry.traces import otlp_encoding as otlp
from quarterdeck.telemetry.traces import span_ids
from quarterdeck.telemetry.traces.blocks import Blocks
from quarterdeck.telemetry.traces.generation import CALLS, GenerationAttributes
from quarterdeck.telemetry.traces.messages import attributes_of
from quarterdeck.telemetry.traces.prompt_numbers import PromptNumbers

MAX_ID = 200
"""Most characters of a user or session that Langfuse accepts."""
PATHS = {
    "chat": "/v1/chat/completions",
    "completions": "/v1/completions",
    "embeddings": "/v1/embeddings",
    "score": "/v1/score",
    "classify": "/classify",
    "tokenize": "/tokenize",
    "detokenize": "/detokenize",
    "audio_transcriptions": "/v1/audio/transcriptions",
    "audio_translations": "/v1/audio/translations",
    "audio_speech": "/v1/audio/speech",
    "images_generations": "/v1/images/generations",
    "images_edits": "/v1/images/edits",
    "images_variations": "/v1/images/variations",
}
TOOL = "tool"
"""The operation of a tool call that the platform made."""
RESERVED = frozenset({"request_id", "org", "team", "key", "key_name"})
"""Metadata of a trace that a caller's own can't replace."""

_OBSERVATION = otlp.text("langfuse.observation.type")("span") + otlp.text("openinference.span.kind")("CHAIN")
_INTERNAL, _CLIENT = otlp.SPAN_KIND_INTERNAL, otlp.SPAN_KIND_CLIENT
_LOCAL = otlp.span_flags(otlp.FLAG_SAMPLED | otlp.FLAG_PARENT_KNOWN)
_REMOTE = otlp.span_flags(otlp.FLAG_SAMPLED | otlp.FLAG_PARENT_KNOWN | otlp.FLAG_PARENT_REMOTE)
_DETAILS = (
    *("endpoint", "route", "attempts", "status", "http_status", "usage_source", "price_version"),
    *("prompt", "prompt_version", "prompt_label", "cache", "resumed", "priority"),
)
_PROMPT = ("prompt", "prompt_version", "prompt_label")

_tool_kind = otlp.text("openinference.span.kind")("TOOL")
_operation_name = otlp.text("gen_ai.operation.name")
_tool_name = otlp.text("gen_ai.tool.name")
_environment = otlp.text("langfuse.environment")
_trace_name = otlp.text("langfuse.trace.name")
_trace_tags = otlp.texts("langfuse.trace.tags")
_request_id = otlp.text("langfuse.trace.metadata.request_id")
_user = otlp.text("user.id")
_session = otlp.text("session.id")
_conversation = otlp.text("gen_ai.conversation.id")
_level = otlp.text("langfuse.observation.level")
_status_message = otlp.text("langfuse.observation.status_message")
_error_type = otlp.text("error.type")
_method = otlp.text("http.request.method")
_route = otlp.text("http.route")
_http_status = otlp.integer("http.response.status_code")
_first_token_seconds = otlp.double("langfuse.observation.metadata.time_to_first_token")
_cache_age = otlp.double("langfuse.observation.metadata.cache_age")
_saved = otlp.text("langfuse.observation.metadata.saved")

_WARNING, _DEFAULT, _ERROR = _level("WARNING"), _level("DEFAULT"), _level("ERROR")


class TraceProjection:
    """Encodes records as spans, for one environment."""

    def __init__(self, environment: str = "default", prompt_numbers: PromptNumbers | None = None) -> None:
        self.environment = environment
        """Langfuse's environment."""
        self._generation = GenerationAttributes(prompt_numbers)
        self._callers = Blocks()
        self._names = Blocks()
        self._span_names = Blocks()
        self._routes = Blocks()
        self._outcomes = Blocks()
        self._details = Blocks()
        self._attempts = Blocks()

    def encode(self, record: RequestRecord, content: Content | None = None) -> bytes:
        """The record's spans, as items of `ScopeSpans.spans`, the request's first. With `content` the call has its
        input and output."""
        title = _title(record)
        spans = _Spans(record, self._shared(record, title), self._span_names)
        begin, end = _ns(record.started), _ns(record.ended)
        is_call = record.operation in CALLS
        outcome, details = self._outcome(record), self._detail(record)
        status = _status(record) if record.status in ("error", "lost") else b""
        kind = record.operation if record.operation != TOOL else (TOOL, record.model)
        route = self._routes.get(kind, _http, record)
        path = PATHS.get(record.operation, record.operation)
        name = title if record.operation == TOOL else f"POST {path}"
        spans.add_request(record, name, begin, end, route + (outcome if is_call else outcome + details), status)
        if record.prompt:
            name, block = f"prompt {record.prompt}", self._prompt(record)
            spans.add(span_ids.PROMPT, spans.root, name, _INTERNAL, begin, begin, block)
        attempts = record.attempts
        called = attempts[0].started if attempts else record.ended
        self._add_steps(record, spans, begin, called)
        parent = spans.root
        if is_call:
            started = called if attempts else record.admitted or record.started
            block = self._generation.encode(record, started) + outcome + details
            if record.session:
                block += _conversation(record.session[:MAX_ID])
            if content is not None:
                block += attributes_of(content)
            spans.add(span_ids.CALL, parent, title, _CLIENT, _ns(started), end, block, status)
            parent = spans.parent(span_ids.CALL)
        for at, attempt in enumerate(attempts):
            kind = _kind_of(record, at) if at else "first"
            model = attempt.model or record.model
            block = self._attempts.get(
                (attempt.endpoint, attempt.status, attempt.error, model, kind), _attempt, attempt, model, kind
            )
            status = _attempt_status(attempt) if attempt.error is not None else b""
            begin, end = _ns(attempt.started), _ns(attempt.ended)
            spans.add(
                span_ids.FIRST_ATTEMPT + at, parent, f"attempt {attempt.endpoint}", _CLIENT, begin, end, block, status
            )
        return b"".join(spans.encoded)

    def _add_steps(self, record: RequestRecord, spans: "_Spans", begin: int, called: float) -> None:
        """Admission, cache and queue, one after the other."""
        admitted = begin
        if record.admitted is not None:
            admitted = _ns(record.admitted)
            spans.add(span_ids.ADMISSION, spans.root, "admission", _INTERNAL, begin, admitted, _OBSERVATION)
        if record.cache != "off":
            # The exact look-up is part of admission's round trip; other wordings and equal requests are asked later.
            after = record.recalled or (record.ended if record.cache == "hit" else None)
            until = _ns(after) if after is not None else admitted
            spans.add(span_ids.CACHE, spans.root, "cache", _INTERNAL, admitted, until, self._cache(record))
        if record.queued is not None:
            queued, until = _ns(record.queued), _ns(called)
            spans.add(span_ids.QUEUE, spans.root, "queue", _INTERNAL, queued, until, _OBSERVATION)

    def _shared(self, record: RequestRecord, title: str) -> bytes:
        """What every span of the trace has."""
        caller = record.trace
        if caller is None:
            who = (record.org, record.team, record.key, record.key_name, record.tags)
            parts = [self._callers.get(who, self._who, record), self._names.get(title, _trace_name, title)]
        else:
            parts = [self._who(record, caller.tags), *_passed_on(caller)]
            if caller.name or record.operation != TOOL:  # a tool call is a part of its response's trace
                parts.append(_trace_name(caller.name or title))
        parts.append(_request_id(record.id))
        if record.user:
            parts.append(_user(record.user[:MAX_ID]))
        if record.session:
            parts.append(_session(record.session[:MAX_ID]))
        return b"".join(parts)

    def _who(self, record: RequestRecord, tags: tuple[str, ...] = ()) -> bytes:
        metadata = {"org": record.org, "team": record.team, "key": record.key, "key_name": record.key_name}
        block = [otlp.text(f"langfuse.trace.metadata.{name}")(value) for name, value in metadata.items()]
        all_tags = dict.fromkeys((f"team:{record.team}", *record.tags, *tags))
        return _environment(self.environment) + _trace_tags(tuple(all_tags)) + b"".join(block)

    def _outcome(self, record: RequestRecord) -> bytes:
        ended = (record.status, record.http_status, record.error_code)
        return self._outcomes.get(ended, _outcome, record)

    def _detail(self, record: RequestRecord) -> bytes:
        """Metadata of the call, or of a request that is none."""
        values = (
            record.endpoint,
            record.route,
            len(record.attempts) if len(record.attempts) > 1 else None,
            record.status,
            record.http_status,
            record.usage_source,
            record.price_version,
            record.prompt,
            record.prompt_version,
            record.prompt_label,
            record.cache,
            record.resumed or None,
            record.priority or None,
        )
        block = self._details.get(values, _metadata, _DETAILS, values)
        if record.saved:
            block += _saved(format(record.saved, "f"))
        if record.cache_age is not None:
            block += _cache_age(record.cache_age)
        if record.stream and record.first_token is not None:
            block += _first_token_seconds(max(0.0, record.first_token - record.started))
        return block

    def _prompt(self, record: RequestRecord) -> bytes:
        values = (record.prompt, record.prompt_version, record.prompt_label)
        return _OBSERVATION + self._details.get(values, _metadata, _PROMPT, values)

    def _cache(self, record: RequestRecord) -> bytes:
        block = _OBSERVATION + self._details.get(record.cache, _metadata, ("cache",), (record.cache,))
        return block if record.cache_age is None else block + _cache_age(record.cache_age)


class _Spans:
    """The encoded spans of one trace."""

    __slots__ = ("_ids", "_names", "_rest", "_seed", "_shared", "_state", "encoded", "root")

    def __init__(self, record: RequestRecord, shared: bytes, names: Blocks) -> None:
        trace_id, self._seed = span_ids.ids_of(record)
        self._ids = otlp.span_ids(trace_id)
        self._shared = shared
        self._rest = shared + _LOCAL
        self._names = names
        self._state = record.trace.state.encode() if record.trace is not None else b""
        self.encoded: list[bytes] = []
        self.root = self.parent(span_ids.ROOT)
        """The request's own span, as a parent."""

    def parent(self, number: int) -> bytes:
        """A span as a parent of others."""
        return otlp.span_parent(span_ids.span_id(self._seed, number), self._state)

    def add_request(
        self, record: RequestRecord, name: str, start_ns: int, end_ns: int, attributes: bytes, status: bytes
    ) -> None:
        """The request's own span, which continues the caller's."""
        parent, flags = b"", _LOCAL
        if (caller := record.trace) is not None:
            parent = otlp.span_parent(bytes.fromhex(caller.parent), self._state)
            flags = _REMOTE if caller.parent else _LOCAL
        self.add(span_ids.ROOT, parent, name, otlp.SPAN_KIND_SERVER, start_ns, end_ns, attributes, status, flags)

    def add(
        self,
        number: int,
        parent: bytes,
        name: str,
        kind: int,
        start_ns: int,
        end_ns: int,
        attributes: bytes,
        status: bytes = b"",
        flags: bytes = _LOCAL,
    ) -> None:
        self.encoded += otlp.span(
            self._ids,
            span_ids.span_id(self._seed, number),
            parent,
            self._names.get(name, otlp.span_name, name),
            kind,
            start_ns,
            end_ns if end_ns > start_ns else start_ns,
            attributes,
            self._rest if not status and flags is _LOCAL else self._shared + status + flags,
        )


def error_message(record: RequestRecord) -> str:
    """How a request ended that is not `ok`."""
    if record.status == "cancelled":
        return "the client disconnected"
    if record.status == "lost":
        return "lost: the gateway died while the request was in progress"
    return f"{record.error_code or record.http_status} (HTTP {record.http_status})"


def _title(record: RequestRecord) -> str:
    """The call's name, and the trace's where the caller has given none."""
    operation, _ = CALLS.get(record.operation, (OPERATIONS.get(record.operation, record.operation), ""))
    return f"{operation} {record.model}" if record.model else operation


def _ns(seconds: float) -> int:
    # To the microsecond: the precision of a Unix time in a double.
    return int(seconds * 1e6 + 0.5) * 1000 if seconds > 0 else 0


def _http(record: RequestRecord) -> bytes:
    if record.operation == TOOL:
        operation, name = _operation_name(OPERATIONS[TOOL]), _tool_name(record.model)
        return otlp.text("langfuse.observation.type")("tool") + _tool_kind + operation + name
    return _OBSERVATION + _method("POST") + _route(PATHS.get(record.operation, record.operation))


def _outcome(record: RequestRecord) -> bytes:
    status = _http_status(record.http_status)
    if record.status == "ok":
        return status + _DEFAULT
    message = _status_message(error_message(record))
    if record.status == "cancelled":
        return status + _WARNING + message
    code = record.error_code or ("lost" if record.status == "lost" else str(record.http_status))
    return status + _ERROR + message + _error_type(code)


def _status(record: RequestRecord) -> bytes:
    return otlp.error_status(error_message(record))


def _metadata(names: Sequence[str], values: Sequence[object]) -> bytes:
    """Of the observation; without what is empty."""
    block = b""
    for name, value in zip(names, values, strict=True):
        full = f"langfuse.observation.metadata.{name}"
        if isinstance(value, int):
            block += otlp.integer(full)(value)
        elif value:
            block += otlp.text(full)(str(value))
    return block


def _passed_on(caller: CallerTrace) -> list[bytes]:
    """The caller's own metadata."""
    prefix = "langfuse.trace.metadata."
    return [otlp.text(prefix + name)(value) for name, value in caller.metadata.items() if name not in RESERVED]


def _kind_of(record: RequestRecord, at: int) -> str:
    """Why another endpoint was called: retry, fallback (to another model) or resume (in mid-stream)."""
    attempt = record.attempts[at]
    if record.first_token is not None and attempt.started >= record.first_token:
        return "resume"
    before = record.attempts[at - 1].model or record.model
    return "retry" if (attempt.model or record.model) == before else "fallback"


def _attempt(attempt: Attempt, model: str, kind: str) -> bytes:
    details = _metadata(("endpoint", "attempt", "model"), (attempt.endpoint, kind, model))
    block = _OBSERVATION + _http_status(attempt.status) + details
    if attempt.error is None:
        return block + _DEFAULT
    level = _ERROR if _is_failure(attempt) else _WARNING
    return block + level + _status_message(_attempt_message(attempt)) + _error_type(attempt.error)


def _is_failure(attempt: Attempt) -> bool:
    """A client that hung up and a continuation that had nothing left are no failures of the endpoint."""
    return attempt.error not in ("cancelled", "nothing_left")


def _attempt_status(attempt: Attempt) -> bytes:
    return otlp.error_status(_attempt_message(attempt)) if _is_failure(attempt) else b""


def _attempt_message(attempt: Attempt) -> str:
    return f"{attempt.error} (HTTP {attempt.status})" if attempt.status else str(attempt.error)
