"""Record → span: `span_of` projects a RequestRecord to a span with OpenTelemetry's and Langfuse's attributes. Pure.

Ids are derived from the record, so that a span exported twice is the same span. User, session and metadata are on the
span itself, because Langfuse stores a row per span and merges nothing. Usage and cost are always given, in buckets that
don't overlap: Langfuse sums buckets, and would count and price by itself without them.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Context, Decimal, localcontext
from typing import Literal

import msgspec

from quarterdeck.money import SUM_DIGITS
from quarterdeck.record import RequestRecord

AttributeValue = str | bool | int | float | tuple[str, ...]
Kind = Literal["client", "server"]

PROVIDER = "quarterdeck"
"""gen_ai.provider.name: the conventions have no value for vLLM or for a self-hosted platform."""
MAX_ID = 200
"""Most characters of a user or session that Langfuse accepts."""

_TRACE_ID = re.compile(r"(?!0{32})[0-9a-f]{32}")
_MILLION = Decimal(1_000_000)
_EXACT = Context(prec=SUM_DIGITS)
_MAX_DIGITS = 18  # of a number that an attribute holds: 64 bits

_CALLS = {
    # Operation: gen_ai's name for it, Langfuse's observation type.
    "chat": ("chat", "generation"),
    "completions": ("text_completion", "generation"),
    "embeddings": ("embeddings", "embedding"),
    "score": ("score", "embedding"),  # not in the conventions; computed from embeddings, and priced by tokens
}


@dataclass(frozen=True, slots=True)
class Event:
    """An event within a span."""

    name: str
    time_ns: int
    attributes: Mapping[str, AttributeValue]


@dataclass(frozen=True, slots=True)
class Span:
    """A span, independent of any library. Ids are hex, times are Unix nanoseconds."""

    name: str
    kind: Kind
    trace_id: str
    span_id: str
    start_ns: int
    end_ns: int
    attributes: Mapping[str, AttributeValue]
    error: str | None = None
    """The message of an error status; None without an error."""
    events: tuple[Event, ...] = field(default=())


def span_of(record: RequestRecord, *, environment: str = "default") -> Span:
    """Project a record to its span."""
    operation, observation = _CALLS.get(record.operation, (record.operation, "span"))
    is_call = record.operation in _CALLS
    name = f"{operation} {record.model}" if record.model else operation
    attributes: dict[str, AttributeValue | None] = {
        **_request(record, operation if is_call else None),
        **_answer(record),
        **_caller(record),
        **_metadata(record),
        "langfuse.observation.type": observation,
        "langfuse.trace.name": name,
        "langfuse.environment": environment,
        **_level(record),
    }
    if is_call:
        attributes |= _usage(record)
    if observation == "generation":
        attributes |= _prompt(record)
    return Span(
        name=name,
        # In the conventions a call to a model is a client span; counting tokens is not one.
        kind="client" if is_call else "server",
        trace_id=trace_id_of(record),
        span_id=span_id_of(record),
        start_ns=_ns(record.started),
        end_ns=max(_ns(record.started), _ns(record.ended)),
        attributes={key: value for key, value in attributes.items() if value is not None},
        error=_error_message(record) if record.status in ("error", "lost") else None,
        events=tuple(
            Event(
                "endpoint.failed",
                _ns(attempt.ended),
                {
                    "endpoint": attempt.endpoint,
                    "error.type": attempt.error,
                    "http.response.status_code": attempt.status,
                },
            )
            for attempt in record.attempts
            if attempt.error is not None
        ),
    )


def trace_id_of(record: RequestRecord) -> str:
    """Return the record's trace id, or one derived from its id if it is malformed: Langfuse would refuse the export."""
    return record.trace_id if _TRACE_ID.fullmatch(record.trace_id) else _hash("trace", record.id, 16)


def span_id_of(record: RequestRecord) -> str:
    """Return a record's span id, derived from its id."""
    return _hash("span", record.id, 8)


def _hash(what: str, text: str, size: int) -> str:
    return hashlib.blake2b(text.encode(), digest_size=size, person=what.encode()).hexdigest()


def _ns(seconds: float) -> int:
    # To the microsecond: the precision of a Unix time in a double.
    return max(0, round(seconds * 1e6)) * 1000


def _request(record: RequestRecord, operation: str | None) -> dict[str, AttributeValue | None]:
    parameters = {
        "temperature": record.temperature,
        "top_p": record.top_p,
        "max_tokens": record.max_tokens,
        "seed": record.seed,
    }
    given = {key: value for key, value in parameters.items() if value is not None}
    return {
        "gen_ai.operation.name": operation,
        "gen_ai.provider.name": PROVIDER,
        "gen_ai.request.model": record.model or None,
        "gen_ai.request.stream": record.stream if operation else None,
        **{f"gen_ai.request.{key}": value for key, value in given.items()},
        "langfuse.observation.model.parameters": _json(given) if given else None,
        "http.response.status_code": record.http_status,
    }


def _answer(record: RequestRecord) -> dict[str, AttributeValue | None]:
    # An answer that is not streamed has no time to first token.
    first = record.first_token if record.stream else None
    return {
        "gen_ai.response.id": record.response_id,
        "gen_ai.response.model": record.model or None,
        "gen_ai.response.finish_reasons": (record.finish_reason,) if record.finish_reason else None,
        "gen_ai.response.time_to_first_chunk": None if first is None else max(0.0, first - record.started),
        "langfuse.observation.completion_start_time": None if first is None else _iso(first),
        "langfuse.observation.model.name": record.model or None,
    }


def _caller(record: RequestRecord) -> dict[str, AttributeValue | None]:
    user = record.user[:MAX_ID] if record.user else None
    session = record.session[:MAX_ID] if record.session else None
    return {
        "user.id": user,
        "langfuse.user.id": user,
        "session.id": session,
        "langfuse.session.id": session,
        "gen_ai.conversation.id": session,
        "langfuse.trace.tags": (f"team:{record.team}", *record.tags),
    }


def _metadata(record: RequestRecord) -> dict[str, AttributeValue | None]:
    trace_metadata = {
        "request_id": record.id,
        "org": record.org,
        "team": record.team,
        "key": record.key,
        "key_name": record.key_name,
    }
    observation_metadata: dict[str, AttributeValue | None] = {
        "endpoint": record.endpoint or None,
        "route": record.route or None,
        "attempts": len(record.attempts) if len(record.attempts) > 1 else None,
        "status": record.status,
        "http_status": record.http_status,
        "usage_source": record.usage_source,
        "price_version": record.price_version or None,
        "prompt": record.prompt,
        "prompt_version": record.prompt_version,
        "prompt_label": record.prompt_label,
        "cache": record.cache,
        "cache_age": record.cache_age,
        "saved": format(record.saved, "f") if record.saved else None,
        "resumed": record.resumed or None,
        "priority": record.priority or None,
    }
    return {
        **{f"langfuse.trace.metadata.{key}": value for key, value in trace_metadata.items()},
        **{f"langfuse.observation.metadata.{key}": value for key, value in observation_metadata.items()},
    }


def _prompt(record: RequestRecord) -> dict[str, AttributeValue | None]:
    """Langfuse links an observation to the prompt of this name and version in its project: both, or neither."""
    version = record.prompt_version or ""
    if not record.prompt or not (version.isascii() and version.isdecimal()) or len(version) > _MAX_DIGITS:
        return {}
    return {"langfuse.observation.prompt.name": record.prompt, "langfuse.observation.prompt.version": int(version)}


def _usage(record: RequestRecord) -> dict[str, AttributeValue | None]:
    uncached = record.input_tokens - record.cached_tokens
    visible = record.output_tokens - record.reasoning_tokens
    details = {
        "input": uncached,
        "input_cached_tokens": record.cached_tokens,
        "output": visible,
        "output_reasoning_tokens": record.reasoning_tokens,
        "total": record.input_tokens + record.output_tokens,
    }
    return {
        "gen_ai.usage.input_tokens": record.input_tokens,
        "gen_ai.usage.output_tokens": record.output_tokens,
        "gen_ai.usage.cache_read.input_tokens": record.cached_tokens or None,
        "gen_ai.usage.reasoning.output_tokens": record.reasoning_tokens or None,
        "langfuse.observation.usage_details": _json(
            {key: value for key, value in details.items() if value or key in ("input", "output", "total")}
        ),
        "langfuse.observation.cost_details": _json(_cost(record, uncached, visible)),
    }


def _cost(record: RequestRecord, uncached: int, visible: int) -> dict[str, msgspec.Raw]:
    """Return dollars by bucket, with the buckets of the usage. Cost that is not by token (hardware) has its own bucket.

    If the tokens' prices exceed the cost (a cache hit), only the total is given.
    """
    with localcontext(_EXACT):
        buckets = {
            "input": uncached * record.price_input / _MILLION,
            "input_cached_tokens": record.cached_tokens * record.price_cached / _MILLION,
            "output": visible * record.price_output / _MILLION,
            "output_reasoning_tokens": record.reasoning_tokens * record.price_output / _MILLION,
        }
        rest = record.cost - sum(buckets.values())
    if rest < 0:
        return {"total": _number(record.cost)}
    buckets["hardware"] = rest
    costs = {key: _number(value) for key, value in buckets.items() if value or key in ("input", "output")}
    return costs | {"total": _number(record.cost)}


def _level(record: RequestRecord) -> dict[str, AttributeValue | None]:
    if record.status == "ok":
        return {"langfuse.observation.level": "DEFAULT"}
    level = "WARNING" if record.status == "cancelled" else "ERROR"
    return {
        "langfuse.observation.level": level,
        "langfuse.observation.status_message": _error_message(record),
        "error.type": None if record.status == "cancelled" else record.error_code or _fallback_code(record),
    }


def _error_message(record: RequestRecord) -> str:
    if record.status == "cancelled":
        return "the client disconnected"
    if record.status == "lost":
        return "lost: the gateway died while the request was in progress"
    return f"{record.error_code or _fallback_code(record)} (HTTP {record.http_status})"


def _fallback_code(record: RequestRecord) -> str:
    return "lost" if record.status == "lost" else str(record.http_status)


def _iso(seconds: float) -> str:
    # Three digits: what a JavaScript Date holds.
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _number(value: Decimal) -> msgspec.Raw:
    """Return a decimal as a JSON number with every digit."""
    text = format(value, "f")
    return msgspec.Raw((text.rstrip("0").rstrip(".") if "." in text else text).encode())


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()
