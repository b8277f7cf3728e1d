"""A record becomes a span: one for each request, said in OpenTelemetry's words and in Langfuse's. Pure.

The ids come from the record, so that a span that is exported twice is the same span. User, session and metadata stand
on the span itself, because Langfuse keeps a row for each span and merges nothing. Usage and cost are given in buckets
that don't overlap, and always: Langfuse adds buckets up, and would count and price by itself where there are none.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Context, Decimal, localcontext
from typing import Literal

import msgspec

from quarterdeck.record import RequestRecord

AttributeValue = str | bool | int | float | tuple[str, ...]
Kind = Literal["client", "server"]

PROVIDER = "quarterdeck"
"""gen_ai.provider.name: the conventions have no word for vLLM or for a platform of one's own."""
MAX_ID = 200
"""Characters of a user or session that Langfuse takes."""

_TRACE_ID = re.compile(r"(?!0{32})[0-9a-f]{32}")
_MILLION = Decimal(1_000_000)
_EXACT = Context(prec=200)  # the usual 28 digits would round a large sum's last ones

_CALLS = {
    # Our operation: gen_ai's word for it, Langfuse's observation type.
    "chat": ("chat", "generation"),
    "completions": ("text_completion", "generation"),
    "embeddings": ("embeddings", "embedding"),
    "score": ("score", "embedding"),  # no word in the conventions; done by comparing embeddings, and priced by tokens
}


@dataclass(frozen=True, slots=True)
class Event:
    """Something at a time within a span."""

    name: str
    time_ns: int
    attributes: Mapping[str, AttributeValue]


@dataclass(frozen=True, slots=True)
class Span:
    """What is told of a request, without any library's classes. Ids are hex, times are Unix nanoseconds."""

    name: str
    kind: Kind
    trace_id: str
    span_id: str
    start_ns: int
    end_ns: int
    attributes: Mapping[str, AttributeValue]
    error: str | None = None
    """Why the span's status is an error; None: it is none."""
    events: tuple[Event, ...] = field(default=())


def span_of(record: RequestRecord, *, environment: str = "default") -> Span:
    """The span of a record."""
    operation, observation = _CALLS.get(record.operation, (record.operation, "span"))
    is_call = record.operation in _CALLS
    name = f"{operation} {record.model}" if record.model else operation
    attributes: dict[str, AttributeValue | None] = {
        **_request(record, operation if is_call else None),
        **_answer(record),
        **_who(record),
        **_metadata(record),
        "langfuse.observation.type": observation,
        "langfuse.trace.name": name,
        "langfuse.environment": environment,
        **_level(record),
    }
    if is_call:
        attributes |= _usage(record)
    return Span(
        name=name,
        # A call to a model is a client's span in the conventions; counting tokens is only served.
        kind="client" if is_call else "server",
        trace_id=trace_id_of(record),
        span_id=span_id_of(record),
        start_ns=_ns(record.started),
        end_ns=max(_ns(record.started), _ns(record.ended)),
        attributes={key: value for key, value in attributes.items() if value is not None},
        error=_complaint(record) if record.status in ("error", "lost") else None,
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
    """The record's own, or one derived from its id: a single malformed id makes Langfuse refuse a whole export."""
    return record.trace_id if _TRACE_ID.fullmatch(record.trace_id) else _hash("trace", record.id, 16)


def span_id_of(record: RequestRecord) -> str:
    """Always the same one for a record."""
    return _hash("span", record.id, 8)


def _hash(what: str, text: str, size: int) -> str:
    return hashlib.blake2b(text.encode(), digest_size=size, person=what.encode()).hexdigest()


def _ns(seconds: float) -> int:
    # To the microsecond: a double holds no more of a Unix time, and further digits would be noise.
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
    # The first piece of an answer that is not streamed is all of it: no time to first token.
    first = record.first_token if record.stream else None
    return {
        "gen_ai.response.id": record.response_id,
        "gen_ai.response.model": record.model or None,
        "gen_ai.response.finish_reasons": (record.finish_reason,) if record.finish_reason else None,
        "gen_ai.response.time_to_first_chunk": None if first is None else max(0.0, first - record.started),
        "langfuse.observation.completion_start_time": None if first is None else _iso(first),
        "langfuse.observation.model.name": record.model or None,
    }


def _who(record: RequestRecord) -> dict[str, AttributeValue | None]:
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
    of_the_trace = {
        "request_id": record.id,
        "org": record.org,
        "team": record.team,
        "key": record.key,
        "key_name": record.key_name,
    }
    of_the_call: dict[str, AttributeValue | None] = {
        "endpoint": record.endpoint or None,
        "route": record.route or None,
        "attempts": len(record.attempts) if len(record.attempts) > 1 else None,
        "status": record.status,
        "http_status": record.http_status,
        "usage_source": record.usage_source,
        "price_version": record.price_version or None,
        "prompt_version": record.prompt_version,
        "cache": record.cache,
        "cache_age": record.cache_age,
        "saved": format(record.saved, "f") if record.saved else None,
        "resumed": record.resumed or None,
        "priority": record.priority or None,
    }
    return {
        **{f"langfuse.trace.metadata.{key}": value for key, value in of_the_trace.items()},
        **{f"langfuse.observation.metadata.{key}": value for key, value in of_the_call.items()},
    }


def _usage(record: RequestRecord) -> dict[str, AttributeValue | None]:
    uncached = record.input_tokens - record.cached_tokens
    spoken = record.output_tokens - record.reasoning_tokens
    details = {
        "input": uncached,
        "input_cached_tokens": record.cached_tokens,
        "output": spoken,
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
        "langfuse.observation.cost_details": _json(_cost(record, uncached, spoken)),
    }


def _cost(record: RequestRecord, uncached: int, spoken: int) -> dict[str, msgspec.Raw]:
    """Dollars by bucket, the same buckets as the usage. What is not by token (hardware) is a bucket of its own.

    Where the tokens' prices say more than was charged (a cache hit), only the total is told.
    """
    with localcontext(_EXACT):
        buckets = {
            "input": uncached * record.price_input / _MILLION,
            "input_cached_tokens": record.cached_tokens * record.price_cached / _MILLION,
            "output": spoken * record.price_output / _MILLION,
            "output_reasoning_tokens": record.reasoning_tokens * record.price_output / _MILLION,
        }
        rest = record.cost - sum(buckets.values())
    if rest < 0:
        return {"total": _number(record.cost)}
    buckets["hardware"] = rest
    told = {key: _number(value) for key, value in buckets.items() if value or key in ("input", "output")}
    return told | {"total": _number(record.cost)}


def _level(record: RequestRecord) -> dict[str, AttributeValue | None]:
    if record.status == "ok":
        return {"langfuse.observation.level": "DEFAULT"}
    level = "WARNING" if record.status == "cancelled" else "ERROR"
    return {
        "langfuse.observation.level": level,
        "langfuse.observation.status_message": _complaint(record),
        "error.type": None if record.status == "cancelled" else record.error_code or _fallback_code(record),
    }


def _complaint(record: RequestRecord) -> str:
    if record.status == "cancelled":
        return "the caller hung up"
    if record.status == "lost":
        return "lost: the gateway ended while the request was under way"
    return f"{record.error_code or _fallback_code(record)} (HTTP {record.http_status})"


def _fallback_code(record: RequestRecord) -> str:
    return "lost" if record.status == "lost" else str(record.http_status)


def _iso(seconds: float) -> str:
    # Three digits: what a JavaScript Date holds.
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _number(value: Decimal) -> msgspec.Raw:
    """A decimal as a JSON number, every digit kept."""
    text = format(value, "f")
    return msgspec.Raw((text.rstrip("0").rstrip(".") if "." in text else text).encode())


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()
