"""A record's trace has the ledger's figures, for Langfuse and for any OpenTelemetry backend: situation by situation."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Context, Decimal, localcontext
from typing import Any

import pytest
from hypothesis import given, settings
from opentelemetry.proto.trace.v1.trace_pb2 import ScopeSpans
from tests.records import a_record, records
from tests.telemetry.langfuse_oracle import Observation
from tests.telemetry.otlp_sink import ReceivedSpan, spans_of

from quarterdeck.record import Attempt, CallerTrace, RequestRecord
from quarterdeck.telemetry.traces.projection import TraceProjection

T = 1_800_000_000.0
OK = (Attempt("m#1", T + 0.25, T + 1.75, 200),)
CALLER = {"id": "4bf92f3577b34da6a3ce929d0e0e4736", "parent": "00f067aa0ba902b7"}


@dataclass(frozen=True)
class Situation:
    """A record, and what its spans are: the expected fields of the observation of each span that matters here."""

    name: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    call: Mapping[str, Any] | None = field(default_factory=dict)
    """Of the model's call. None: there is none."""
    root: Mapping[str, Any] = field(default_factory=dict)
    spans: Sequence[str] | None = None
    """Names of all spans, in order."""
    tried: Sequence[tuple[str, str]] = ()
    """Kind and level of each attempt, where they matter."""


def situation(name: str, *, call: Mapping[str, Any] | None = {}, **changes: Any) -> Situation:
    root, spans, tried = changes.pop("root", {}), changes.pop("spans", None), changes.pop("tried", ())
    return Situation(name, changes, call, root, spans, tried)


def plain(**changes: Any) -> dict[str, Any]:
    """Fields of an ordinary request with one attempt."""
    base = {"attempts": OK, "resumed": 0, "cached_tokens": 0, "reasoning_tokens": 0, "cost": Decimal("0.0000111")}
    return base | {"model": "m", "endpoint": "m#1", "started": T, "first_token": T + 0.5, "ended": T + 1.75} | changes


def of(name: str, call: Mapping[str, Any] | None = {}, **changes: Any) -> Situation:
    return situation(name, call=call, **plain(**changes))


def usage(given: int, made: int, **buckets: int) -> dict[str, int]:
    return {"input": given, "output": made, **buckets}


OPERATIONS = [
    ("chat", "chat m", "GENERATION", "POST /v1/chat/completions"),
    ("completions", "text_completion m", "GENERATION", "POST /v1/completions"),
    ("embeddings", "embeddings m", "EMBEDDING", "POST /v1/embeddings"),
    ("score", "score m", "EMBEDDING", "POST /v1/score"),
]
FAILURES = [
    (502, "engine_error"),
    (503, "model_not_ready"),
    (504, "request_timeout"),
    (500, "internal_error"),
    (400, "context_length_exceeded"),
    (429, "rate_limit_exceeded"),
    (401, "engine_authentication"),
    (404, "model_not_found"),
]
CANCELLED = {"level": "WARNING", "status_message": "the client disconnected"}
LOST = "lost: the gateway died while the request was in progress"

SITUATIONS = [
    # -- type, name and model of each operation, plain and streamed
    *[
        of(
            f"{operation}, {'streamed' if stream else 'whole'}",
            {"type": kind, "name": title, "model": "m", "level": "DEFAULT", "trace_name": title},
            operation=operation,
            stream=stream,
            root={"type": "SPAN", "name": path, "model": None, "trace_name": title, "usage": {}, "cost": {}},
            spans=[path, title, "attempt m#1"],
        )
        for operation, title, kind, path in OPERATIONS
        for stream in (False, True)
    ],
    *[
        of(
            f"{operation}: a request without a model's call",
            None,
            operation=operation,
            stream=False,
            cost=Decimal(0),
            input_tokens=0,
            output_tokens=0,
            root={"type": "SPAN", "name": f"POST /{operation}", "trace_name": f"{operation} m", "level": "DEFAULT"},
            spans=[f"POST /{operation}", "attempt m#1"],
        )
        for operation in ("tokenize", "detokenize")
    ],
    of("a model's name with a slash", {"model": "org/m:8b", "name": "chat org/m:8b"}, model="org/m:8b"),
    of("a model's name in another script", {"model": "模型", "name": "chat 模型"}, model="模型"),
    of("no model", {"model": None, "name": "chat", "trace_name": "chat"}, model=""),
    # -- usage in buckets that don't overlap
    of("usage: input and output", {"usage": usage(30, 11, total=41)}),
    of("usage: no output", {"usage": usage(30, 0, total=30)}, output_tokens=0, cost=Decimal("0.0000045")),
    of("usage: nothing", {"usage": usage(0, 0, total=0)}, input_tokens=0, output_tokens=0, cost=Decimal(0)),
    of(
        "usage: some of the prompt was cached",
        {"usage": usage(14, 11, input_cached_tokens=16, total=41)},
        cached_tokens=16,
        cost=Decimal("0.0000099"),
    ),
    of(
        "usage: all of the prompt was cached",
        {"usage": usage(0, 11, input_cached_tokens=30, total=41)},
        cached_tokens=30,
        cost=Decimal("0.00000885"),
    ),
    of(
        "usage: reasoning",
        {"usage": usage(30, 8, output_reasoning_tokens=3, total=41)},
        reasoning_tokens=3,
    ),
    of(
        "usage: all of the answer was reasoning",
        {"usage": usage(30, 0, output_reasoning_tokens=11, total=41)},
        reasoning_tokens=11,
    ),
    of(
        "usage: cached and reasoning",
        {"usage": usage(14, 8, input_cached_tokens=16, output_reasoning_tokens=3, total=41)},
        cached_tokens=16,
        reasoning_tokens=3,
        cost=Decimal("0.0000099"),
    ),
    of(
        "usage: a million tokens",
        {"usage": usage(10**6, 10**6, total=2 * 10**6)},
        input_tokens=10**6,
        output_tokens=10**6,
        cost=Decimal("0.75"),
    ),
    of("usage: more than 32 bits", {"usage": usage(10**12, 1, total=10**12 + 1)}, input_tokens=10**12, output_tokens=1),
    of(
        "usage of an embedding",
        {"usage": usage(7, 0, total=7)},
        operation="embeddings",
        input_tokens=7,
        output_tokens=0,
    ),
    *[
        of(
            f"usage by {source}",
            {"usage": usage(30, 11, total=41), "metadata.usage_source": source},
            usage_source=source,
        )
        for source in ("engine", "counted", "estimated", "none")
    ],
    # -- cost
    of("cost by tokens", {"cost": {"input": "0.0000045", "output": "0.0000066", "total": "0.0000111"}}),
    of(
        "cost of cached and reasoning tokens",
        {
            "cost": {
                "input": "0.0000021",
                "input_cached_tokens": "0.0000012",
                "output": "0.0000048",
                "output_reasoning_tokens": "0.0000018",
                "total": "0.0000099",
            }
        },
        cached_tokens=16,
        reasoning_tokens=3,
        cost=Decimal("0.0000099"),
    ),
    of(
        "cost of the hardware",
        {"cost": {"input": "0.0000045", "output": "0.0000066", "hardware": "0.5", "total": "0.5000111"}},
        cost=Decimal("0.5000111"),
    ),
    of(
        "cost of the hardware only",
        {"cost": {"input": "0", "output": "0", "hardware": "0.25", "total": "0.25"}},
        price_input=Decimal(0),
        price_cached=Decimal(0),
        price_output=Decimal(0),
        cost=Decimal("0.25"),
    ),
    of(
        "a free model costs 0, which keeps the server from pricing it",
        {"cost": {"input": "0", "output": "0", "total": "0"}},
        price_input=Decimal(0),
        price_cached=Decimal(0),
        price_output=Decimal(0),
        cost=Decimal(0),
    ),
    of(
        "a price of eighteen digits",
        {"total_cost": Decimal("0.000000000000000030000000000011")},
        price_input=Decimal("0.000000000000000001"),
        price_output=Decimal("0"),
        cost=Decimal("0.000000000000000030000000000011"),
    ),
    of(
        "a large price",
        {"total_cost": Decimal("4100")},
        price_input=Decimal("1E+8"),
        price_output=Decimal("1E+8"),
        cost=Decimal("4100"),
    ),
    of("a cost below what the tokens would be", {"cost": {"total": "0.000001"}}, cost=Decimal("0.000001")),
    # -- the cache
    of(
        "a cache hit costs 0 and names what it saved",
        {
            "usage": usage(0, 0, total=0),
            "cost": {"input": "0", "output": "0", "total": "0"},
            "metadata.cache": "hit",
            "metadata.cache_age": 2.5,
            "metadata.saved": "0.10",
        },
        cache="hit",
        cache_age=2.5,
        saved=Decimal("0.10"),
        cost=Decimal(0),
        input_tokens=0,
        output_tokens=0,
        attempts=(),
        endpoint="",
        usage_source="none",
        admitted=T + 0.01,
        spans=["POST /v1/chat/completions", "admission", "cache", "chat m"],
    ),
    of(
        "a hit on another wording took a while",
        {"metadata.cache": "hit"},
        cache="hit",
        cache_age=9.0,
        cost=Decimal(0),
        input_tokens=0,
        output_tokens=0,
        attempts=(),
        admitted=T + 0.01,
        recalled=T + 0.2,
        spans=["POST /v1/chat/completions", "admission", "cache", "chat m"],
    ),
    of(
        "a hit whose record still has tokens costs its total",
        {"cost": {"total": "0"}, "total_usage": 41},
        cache="hit",
        cost=Decimal(0),
        saved=Decimal("0.0000111"),
        attempts=(),
    ),
    of(
        "a cache miss",
        {"metadata.cache": "miss", "total_cost": Decimal("0.0000111")},
        cache="miss",
        admitted=T + 0.01,
        recalled=T + 0.02,
        spans=["POST /v1/chat/completions", "admission", "cache", "chat m", "attempt m#1"],
    ),
    of("a request that asked for no cached answer", {"metadata.cache": "bypass"}, cache="bypass"),
    of("no cache", {"metadata.cache": "off"}, spans=["POST /v1/chat/completions", "chat m", "attempt m#1"]),
    # -- time to first token
    of("time to first token of a stream", {"first_token": T + 0.5}, stream=True),
    of("a whole answer has none", {"completion_start_time": None}, stream=False),
    of("a stream that never began has none", {"completion_start_time": None}, stream=True, first_token=None),
    of("an embedding has none", {"completion_start_time": None}, operation="embeddings", stream=False),
    of("to the millisecond", {"first_token": T + 0.623}, first_token=T + 0.6234),
    of("across a second", {"first_token": T + 1.0}, first_token=T + 0.9999, ended=T + 2),
    # -- parameters
    of(
        "no parameters",
        {"model_parameters": {}},
        temperature=None,
        top_p=None,
        max_tokens=None,
        seed=None,
    ),
    *[
        of(
            f"parameter {name} {value}",
            {"model_parameters": {name: value}},
            **({"temperature": None, "top_p": None, "max_tokens": None, "seed": None} | {name: value}),
        )
        for name, value in (
            ("temperature", 0.5),
            ("temperature", 0.0),
            ("temperature", 2.0),
            ("top_p", 0.25),
            ("max_tokens", 1),
            ("max_tokens", 131_072),
            ("seed", 7),
            ("seed", -(2**63)),
            ("seed", 2**63 - 1),
        )
    ],
    of(
        "all parameters",
        {"model_parameters": {"temperature": 0.5, "top_p": 0.25, "max_tokens": 64, "seed": 7}},
        temperature=0.5,
        top_p=0.25,
    ),
    # -- the prompt's version
    of(
        "a prompt by its label",
        {"prompt": ("greeting", 3), "metadata.prompt_label": "production"},
        prompt="greeting",
        prompt_version="3",
        prompt_label="production",
        spans=["POST /v1/chat/completions", "prompt greeting", "chat m", "attempt m#1"],
    ),
    of("a prompt by its version", {"prompt": ("greeting", 12)}, prompt="greeting", prompt_version="12"),
    of("a completion of a prompt", {"prompt": ("p", 1)}, prompt="p", prompt_version="1", operation="completions"),
    of("an embedding is linked to no prompt", {"prompt": None}, prompt="p", prompt_version="1", operation="embeddings"),
    of("a version that is no number is not linked", {"prompt": None}, prompt="p", prompt_version="latest"),
    of("a version without a name is not linked", {"prompt": None}, prompt_version="3"),
    of(
        "a prompt of a request that failed",
        {"prompt": ("p", 2), "level": "ERROR"},
        prompt="p",
        prompt_version="2",
        status="error",
        http_status=502,
    ),
    # -- user, session and tags
    of("user and session", {"user_id": "u-1", "session_id": "s-1"}, root={"user_id": "u-1", "session_id": "s-1"}),
    of("a user without a session", {"user_id": "u", "session_id": None}, user="u", session=None),
    of("a session without a user", {"user_id": None, "session_id": "s"}, user=None, session="s"),
    of("neither", {"user_id": None, "session_id": None}, user=None, session=None),
    of(
        "ids are cut to what the server takes",
        {"user_id": "u" * 200, "session_id": "s" * 200},
        user="u" * 512,
        session="s" * 512,
    ),
    of("a user in another script", {"user_id": "ü-用户"}, user="ü-用户"),
    of("the team is a tag", {"tags": ["team:red"]}, team="red", tags=()),
    of("the key's tags", {"tags": ["team:default", "batch", "ci"]}),
    of(
        "the request's tags follow the key's, each once",
        {"tags": ["team:default", "batch", "ci", "mine"]},
        trace=CallerTrace(tags=("ci", "mine")),
    ),
    of(
        "a mirrored request",
        {"tags": ["team:mirror", "mirror"]},
        team="mirror",
        key="mirror",
        tags=("mirror",),
        user=None,
        session=None,
    ),
    # -- what the caller stated for the trace
    of(
        "a name for the trace",
        {"trace_name": "support", "name": "chat m"},
        trace=CallerTrace(name="support"),
        root={"trace_name": "support"},
    ),
    of(
        "the caller's trace continues",
        {"trace_id": CALLER["id"]},
        trace=CallerTrace(**CALLER),
        root={"parent_id": CALLER["parent"], "trace_id": CALLER["id"]},
    ),
    of(
        "a trace id without a parent",
        {"trace_id": CALLER["id"]},
        trace=CallerTrace(id=CALLER["id"]),
        root={"parent_id": None},
    ),
    of(
        "the caller's metadata",
        {"metadata.customer": "acme", "metadata.plan": "gold"},
        trace=CallerTrace(metadata={"customer": "acme", "plan": "gold"}),
    ),
    of(
        "the caller's metadata replaces none of the platform's",
        {"metadata.key": "key_1", "metadata.org": "default", "metadata.team": "default"},
        trace=CallerTrace(metadata={"key": "key_2", "org": "other", "team": "other", "request_id": "req_x"}),
    ),
    of(
        "metadata of the platform",
        {
            "metadata.key": "key_1",
            "metadata.key_name": "laptop",
            "metadata.endpoint": "m#1",
            "metadata.route": "fast",
            "metadata.priority": 3,
            "metadata.price_version": "abcdef012345",
        },
    ),
    # -- how it ended
    *[
        of(
            f"failed with {status} {code}",
            {"level": "ERROR", "status_message": f"{code} (HTTP {status})", "status": 2, "error_type": code},
            status="error",
            http_status=status,
            error_code=code,
            first_token=None,
            attempts=(Attempt("m#1", T + 0.25, T + 1, status, code),),
            root={"level": "ERROR", "status_message": f"{code} (HTTP {status})"},
            tried=[("first", "ERROR")],
        )
        for status, code in FAILURES
    ],
    of(
        "failed without a code",
        {"level": "ERROR", "status_message": "400 (HTTP 400)", "error_type": "400"},
        status="error",
        http_status=400,
    ),
    of(
        "a stream that broke after it began",
        {"level": "ERROR", "status_message": "engine_error (HTTP 200)", "first_token": T + 0.5},
        status="error",
        http_status=200,
        error_code="engine_error",
        stream=True,
    ),
    of(
        "no endpoint was ready",
        {"level": "ERROR", "usage": usage(0, 0, total=0)},
        status="error",
        http_status=503,
        error_code="model_not_ready",
        attempts=(),
        endpoint="",
        input_tokens=0,
        output_tokens=0,
        cost=Decimal(0),
        first_token=None,
        spans=["POST /v1/chat/completions", "chat m"],
    ),
    of(
        "the client hung up in mid-stream",
        CANCELLED | {"usage": usage(30, 11, total=41)},
        status="cancelled",
        http_status=200,
        usage_source="counted",
        stream=True,
        root=CANCELLED,
        attempts=(Attempt("m#1", T + 0.25, T + 1, 200, "cancelled"),),
        tried=[("first", "WARNING")],
    ),
    of(
        "the client hung up before the answer",
        CANCELLED,
        status="cancelled",
        http_status=499,
        first_token=None,
        cost=Decimal(0),
        input_tokens=0,
        output_tokens=0,
    ),
    of(
        "the gateway died",
        {"level": "ERROR", "status_message": LOST, "error_type": "lost"},
        status="lost",
        http_status=0,
        attempts=(),
        usage_source="estimated",
    ),
    of("ok", {"level": "DEFAULT", "status_message": None, "status": 0, "error_type": None}),
    # -- attempts
    of(
        "one endpoint",
        spans=["POST /v1/chat/completions", "chat m", "attempt m#1"],
        tried=[("first", "DEFAULT")],
    ),
    of(
        "another endpoint after a failure",
        {"metadata.attempts": 2},
        attempts=(
            Attempt("m#0", T, T + 0.1, 0, "engine_unavailable", "m"),
            Attempt("m#1", T + 0.1, T + 1.75, 200, None, "m"),
        ),
        tried=[("first", "ERROR"), ("retry", "DEFAULT")],
    ),
    of(
        "two retries",
        {"metadata.attempts": 3},
        attempts=(
            Attempt("m#0", T, T + 0.1, 503, "overloaded", "m"),
            Attempt("m#2", T + 0.1, T + 0.2, 0, "engine_timeout", "m"),
            Attempt("m#1", T + 0.2, T + 1.75, 200, None, "m"),
        ),
        tried=[("first", "ERROR"), ("retry", "ERROR"), ("retry", "DEFAULT")],
    ),
    of(
        "a fallback to another model",
        {"model": "m", "total_cost": Decimal("0.0000111")},
        attempts=(
            Attempt("big#0", T, T + 0.1, 503, "overloaded", "big"),
            Attempt("m#1", T + 0.1, T + 1.75, 200, None, "m"),
        ),
        tried=[("first", "ERROR"), ("fallback", "DEFAULT")],
    ),
    of(
        "a retry, then a fallback",
        attempts=(
            Attempt("big#0", T, T + 0.1, 503, "overloaded", "big"),
            Attempt("big#1", T + 0.1, T + 0.2, 503, "overloaded", "big"),
            Attempt("m#1", T + 0.2, T + 1.75, 200, None, "m"),
        ),
        tried=[("first", "ERROR"), ("retry", "ERROR"), ("fallback", "DEFAULT")],
    ),
    of(
        "a stream resumed on another endpoint",
        {"metadata.resumed": 1, "first_token": T + 0.5},
        resumed=1,
        stream=True,
        attempts=(
            Attempt("m#0", T, T + 0.8, 200, "engine_error", "m"),
            Attempt("m#1", T + 0.8, T + 1.75, 200, None, "m"),
        ),
        tried=[("first", "ERROR"), ("resume", "DEFAULT")],
    ),
    of(
        "a retry, then two resumes",
        {"metadata.resumed": 2},
        resumed=2,
        stream=True,
        attempts=(
            Attempt("m#3", T, T + 0.1, 0, "engine_unavailable", "m"),
            Attempt("m#0", T + 0.1, T + 0.8, 200, "engine_error", "m"),
            Attempt("m#2", T + 0.8, T + 0.9, 200, "engine_error", "m"),
            Attempt("m#1", T + 0.9, T + 1.75, 200, None, "m"),
        ),
        tried=[("first", "ERROR"), ("retry", "ERROR"), ("resume", "ERROR"), ("resume", "DEFAULT")],
    ),
    of(
        "a continuation that had nothing left",
        attempts=(
            Attempt("m#0", T, T + 0.8, 200, "engine_error", "m"),
            Attempt("m#1", T + 0.8, T + 0.9, 0, "nothing_left", "m"),
        ),
        tried=[("first", "ERROR"), ("resume", "WARNING")],
    ),
    of(
        "a continuation with other words",
        attempts=(
            Attempt("m#0", T, T + 0.8, 200, "engine_error", "m"),
            Attempt("m#1", T + 0.8, T + 0.9, 200, "resume_diverged", "m"),
        ),
        tried=[("first", "ERROR"), ("resume", "ERROR")],
        status="error",
        http_status=200,
        error_code="engine_error",
    ),
    # -- steps
    of("admission", admitted=T + 0.002, spans=["POST /v1/chat/completions", "admission", "chat m", "attempt m#1"]),
    of(
        "a wait for a place",
        admitted=T + 0.002,
        queued=T + 0.003,
        spans=["POST /v1/chat/completions", "admission", "queue", "chat m", "attempt m#1"],
    ),
    of(
        "a wait in vain",
        status="error",
        http_status=503,
        error_code="queue_timeout",
        admitted=T + 0.002,
        queued=T + 0.003,
        attempts=(),
        endpoint="",
        cost=Decimal(0),
        input_tokens=0,
        output_tokens=0,
        first_token=None,
        spans=["POST /v1/chat/completions", "admission", "queue", "chat m"],
    ),
    of(
        "everything at once",
        {"prompt": ("p", 1), "type": "GENERATION"},
        prompt="p",
        prompt_version="1",
        cache="miss",
        admitted=T + 0.002,
        recalled=T + 0.01,
        queued=T + 0.01,
        trace=CallerTrace(**CALLER, name="n", tags=("t",), metadata={"a": "b"}, state="v=1"),
        spans=["POST /v1/chat/completions", "prompt p", "admission", "cache", "queue", "chat m", "attempt m#1"],
    ),
]


@pytest.mark.parametrize("case", SITUATIONS, ids=lambda case: case.name)
def test_the_server_shows(case: Situation) -> None:
    record = a_record(**case.changes)
    spans = projected(record)
    check_laws(record, spans)
    root, call = spans[0], call_of(spans)
    expect(root, case.root)
    if case.call is None:
        assert call is None
    else:
        assert call is not None
        expect(call, case.call)
    if case.spans is not None:
        assert [span.name for span in spans] == list(case.spans)
    tried = [span for span in spans if span.name.startswith("attempt ")]
    if case.tried:
        found = [(span.observation.metadata["attempt"], span.observation.level) for span in tried]
        assert found == list(case.tried)


def projected(record: RequestRecord, environment: str = "test") -> list[ReceivedSpan]:
    encoded = TraceProjection(environment).encode(record)
    assert ScopeSpans.FromString(encoded).SerializeToString() == encoded, "not as protobuf's library encodes it"
    return spans_of(encoded)


def call_of(spans: Sequence[ReceivedSpan]) -> ReceivedSpan | None:
    calls = [span for span in spans if span.observation.type in ("GENERATION", "EMBEDDING")]
    assert len(calls) <= 1
    return calls[0] if calls else None


def expect(span: ReceivedSpan, expected: Mapping[str, Any]) -> None:
    row = span.observation
    for name, value in expected.items():
        if name.startswith("metadata."):
            assert row.metadata.get(name.removeprefix("metadata.")) == value, name
        elif name == "cost":
            assert row.cost == {bucket: Decimal(amount) for bucket, amount in value.items()}
        elif name == "first_token":
            assert row.completion_start_time == pytest.approx(value, abs=0.0006)
            assert span.attributes["gen_ai.response.time_to_first_chunk"] == pytest.approx(
                value - row.start, abs=0.0006
            )
        elif name == "model_parameters":
            given = {k: v for k, v in row.model_parameters.items() if k != "stream"}
            assert given == {k: Decimal(str(v)) if isinstance(v, float) else v for k, v in value.items()}
        elif name == "status":
            assert span.status == value
        elif name == "error_type":
            assert span.attributes.get("error.type") == value
        else:
            assert getattr(row, name) == value, name


def check_laws(record: RequestRecord, spans: Sequence[ReceivedSpan]) -> None:
    """What holds of every trace."""
    rows = [span.observation for span in spans]
    root = spans[0]
    assert len({span.span_id for span in spans}) == len(spans)
    assert {span.trace_id for span in spans} == {root.trace_id}
    caller = record.trace.parent if record.trace else ""
    assert root.parent_id == (caller or None)
    parents = {span.span_id for span in spans}
    assert all(span.parent_id in parents for span in spans[1:])
    # On every span: Langfuse keeps a row for each, and merges nothing.
    user, session = (record.user or "")[:200] or None, (record.session or "")[:200] or None
    for row in rows:
        assert (row.user_id, row.session_id, row.environment) == (user, session, "test")
        assert row.tags == rows[0].tags
        assert row.tags[0] == f"team:{record.team}"
        assert row.trace_name == rows[0].trace_name is not None
        shown = {name: row.metadata[name] for name in ("request_id", "org", "team", "key")}
        assert shown == {"request_id": record.id, "org": record.org, "team": record.team, "key": record.key}
        assert row.start <= row.end
    # Only the call has usage and cost.
    with localcontext(Context(prec=200)):
        assert sum((row.total_cost for row in rows), Decimal(0)) == record.cost
    assert sum(row.total_usage for row in rows) == record.input_tokens + record.output_tokens
    for row in rows:
        if row.type not in ("GENERATION", "EMBEDDING"):
            assert (row.usage, row.cost, row.model, row.prompt, row.completion_start_time) == ({}, {}, None, None, None)
        else:
            check_buckets(row)


def check_buckets(row: Observation) -> None:
    assert sum(value for key, value in row.usage.items() if key != "total") == row.total_usage
    assert row.cost, "the server would count and price by itself"
    if len(row.cost) > 1:
        with localcontext(Context(prec=200)):
            assert sum(value for key, value in row.cost.items() if key != "total") == row.total_cost


def test_there_are_a_hundred_situations() -> None:
    assert len(SITUATIONS) >= 100
    assert len({each.name for each in SITUATIONS}) == len(SITUATIONS)


@settings(max_examples=200)
@given(record=records)
def test_for_any_record_the_server_shows_the_ledgers_cost_and_tokens(record: RequestRecord) -> None:
    record.cached_tokens = min(record.cached_tokens, record.input_tokens)
    record.reasoning_tokens = min(record.reasoning_tokens, record.output_tokens)
    check_laws(record, projected(record))


def test_the_conventions_attributes_stand_alone() -> None:
    call = call_of(projected(a_record()))
    assert call is not None
    assert (call.kind, call.name) == (3, "chat smollm2")  # CLIENT
    alone = {key: value for key, value in call.attributes.items() if not key.startswith("langfuse.")}
    assert alone == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "quarterdeck",
        "gen_ai.request.model": "smollm2",
        "gen_ai.request.stream": True,
        "gen_ai.request.temperature": 0.7,
        "gen_ai.request.top_p": 0.9,
        "gen_ai.request.max_tokens": 64,
        "gen_ai.request.seed": 7,
        "gen_ai.response.id": "chatcmpl-1",
        "gen_ai.response.model": "smollm2",
        "gen_ai.response.finish_reasons": ["stop"],
        "gen_ai.response.time_to_first_chunk": 0.5,
        "gen_ai.usage.input_tokens": 30,
        "gen_ai.usage.output_tokens": 11,
        "gen_ai.usage.cache_read.input_tokens": 16,
        "gen_ai.usage.reasoning.output_tokens": 3,
        "gen_ai.usage.cost": 0.0000099,
        "gen_ai.conversation.id": "s-1",
        "session.id": "s-1",
        "user.id": "u-1",
        "http.response.status_code": 200,
    }


def test_the_requests_own_span_is_an_http_servers() -> None:
    root = projected(a_record())[0]
    assert root.kind == 2  # SERVER
    assert root.attributes["http.request.method"] == "POST"
    assert root.attributes["http.route"] == "/v1/chat/completions"
    assert root.attributes["http.response.status_code"] == 200


def test_spans_follow_each_other_in_time() -> None:
    record = a_record(admitted=T + 0.2, queued=T + 0.21, cache="miss", recalled=T + 0.205, **attempts_at(0.3, 1.5))
    spans = {span.name: span for span in projected(record)}
    at = {name: (span.observation.start - T, span.observation.end - T) for name, span in spans.items()}
    expected = {
        "POST /v1/chat/completions": (0.125, 1.75),
        "admission": (0.125, 0.2),
        "cache": (0.2, 0.205),
        "queue": (0.21, 0.3),
        "chat smollm2": (0.3, 1.75),
        "attempt m#1": (0.3, 1.5),
    }
    assert at.keys() == expected.keys()
    for name, (start, end) in expected.items():
        assert at[name] == pytest.approx((start, end), abs=1e-5), name


def attempts_at(start: float, end: float) -> dict[str, Any]:
    return {"attempts": (Attempt("m#1", T + start, T + end, 200),)}


def test_a_record_delivered_twice_is_the_same_trace() -> None:
    record, other = a_record(), a_record()
    projection = TraceProjection()
    assert projection.encode(record) == projection.encode(record) == TraceProjection().encode(record)
    assert {span.span_id for span in projected(record)}.isdisjoint(span.span_id for span in projected(other))


def test_two_requests_of_one_trace_have_spans_of_their_own() -> None:
    spans = [span for _ in range(50) for span in projected(a_record(trace=CallerTrace(**CALLER)))]
    assert {span.trace_id for span in spans} == {CALLER["id"]}
    assert len({span.span_id for span in spans}) == len(spans)


def test_the_callers_state_and_flags_are_on_the_spans() -> None:
    root, *rest = projected(a_record(trace=CallerTrace(**CALLER, state="vendor=1,other=2")))
    assert {span.trace_state for span in (root, *rest)} == {"vendor=1,other=2"}
    assert root.flags == 0x301  # sampled, and its parent is remote
    assert {span.flags for span in rest} == {0x101}


@pytest.mark.parametrize("id", ["req_short", "anything", "req_" + "0" * 32, "req_" + "AB" * 16, "", "req_" + "é" * 32])
def test_an_id_that_is_no_trace_id_still_makes_valid_ones(id: str) -> None:
    spans = projected(a_record(id=id))  # the sink refuses an export with an invalid id
    assert len({span.span_id for span in spans}) == len(spans)


def test_thousands_of_keys_models_and_users_keep_its_memory_bounded() -> None:
    projection = TraceProjection()
    for number in range(10_000):
        projection.encode(a_record(key=f"key_{number}", model=f"m{number}", user=f"u{number}", max_tokens=number))
    blocks = [projection._callers, projection._names, projection._span_names, projection._details]
    assert all(len(each._blocks) <= 4096 for each in blocks)


def test_a_tool_call_is_a_tool_span_in_its_responses_trace() -> None:
    record = a_record(**plain(operation="tool", model="calc.add", attempts=(), trace=CallerTrace(**CALLER)))
    (span,) = projected(record)
    assert span.name == "execute_tool calc.add"
    assert span.attributes["gen_ai.operation.name"] == "execute_tool"
    assert span.attributes["gen_ai.tool.name"] == "calc.add"
    assert span.attributes["langfuse.observation.type"] == "tool"
    assert "langfuse.trace.name" not in span.attributes
