"""A record's span has the ledger's figures for Langfuse and for any OpenTelemetry backend."""

from dataclasses import replace
from decimal import Context, Decimal, localcontext

import pytest
from hypothesis import given, settings
from tests.records import a_record, records
from tests.telemetry.langfuse_oracle import Observation, observation_of

from quarterdeck.record import RequestRecord
from quarterdeck.telemetry.spans import AttributeValue, Span, span_of


def observed(record: RequestRecord) -> Observation:
    return observation(span_of(record, environment="test"))


def observation(span: Span) -> Observation:
    return observation_of(
        trace_id=span.trace_id,
        span_id=span.span_id,
        parent_id=None,
        name=span.name,
        start_ns=span.start_ns,
        end_ns=span.end_ns,
        status_code=0 if span.error is None else 2,
        status_message=span.error or "",
        attributes=span.attributes,
        resource={},
    )


def without_langfuse(span: Span) -> dict[str, AttributeValue]:
    return {key: value for key, value in span.attributes.items() if not key.startswith("langfuse.")}


def test_a_chat_is_a_generation_with_everything_on_it() -> None:
    record = a_record()
    row = observed(record)
    assert (row.type, row.name, row.model) == ("GENERATION", "chat smollm2", "smollm2")
    assert (row.user_id, row.session_id, row.trace_name) == ("u-1", "s-1", "chat smollm2")
    assert (row.environment, row.tags) == ("test", ["team:default", "batch", "ci"])
    assert row.trace_id == record.trace_id
    assert row.metadata["key"] == "key_1"
    assert row.metadata["team"] == "default"
    assert row.metadata["endpoint"] == "smollm2#1"
    assert row.metadata["route"] == "fast"
    assert (row.metadata["resumed"], row.metadata["priority"]) == (1, 3)
    assert row.metadata["usage_source"] == "engine"
    assert row.metadata["price_version"] == "abcdef012345"
    assert row.model_parameters == {
        "temperature": pytest.approx(Decimal("0.7")),
        "top_p": pytest.approx(Decimal("0.9")),
        "max_tokens": 64,
        "seed": 7,
    }


def test_a_generation_is_linked_to_its_prompt_by_name_and_number() -> None:
    row = observed(a_record(prompt="greeting", prompt_version="3", prompt_label="production"))
    assert row.prompt == ("greeting", 3)
    assert [row.metadata[key] for key in ("prompt", "prompt_version", "prompt_label")] == [
        "greeting",
        "3",
        "production",
    ]
    assert observed(a_record()).prompt is None


def test_a_version_that_is_no_number_links_nothing() -> None:
    span = span_of(a_record(prompt="greeting", prompt_version="three"))
    assert not [key for key in span.attributes if key.startswith("langfuse.observation.prompt.")]


def test_usage_and_cost_come_in_buckets_that_do_not_overlap() -> None:
    record = a_record()
    row = observed(record)
    assert row.usage == {
        "input": 14,
        "input_cached_tokens": 16,
        "output": 8,
        "output_reasoning_tokens": 3,
        "total": 41,
    }
    assert row.cost == {
        "input": Decimal("0.0000021"),
        "input_cached_tokens": Decimal("0.0000012"),
        "output": Decimal("0.0000048"),
        "output_reasoning_tokens": Decimal("0.0000018"),
        "total": record.cost,
    }


def test_without_cached_and_reasoning_tokens_there_are_two_buckets() -> None:
    row = observed(a_record(cached_tokens=0, reasoning_tokens=0, cost=Decimal("0.0000111")))
    assert row.usage == {"input": 30, "output": 11, "total": 41}
    assert row.cost.keys() == {"input", "output", "total"}


def test_what_the_hardware_costs_is_a_bucket_of_its_own() -> None:
    record = a_record(cost=Decimal("0.0000099") + Decimal("0.5"))
    row = observed(record)
    assert row.cost["hardware"] == Decimal("0.5")
    assert row.total_cost == record.cost


def test_a_cache_hit_costs_nothing_and_says_so() -> None:
    row = observed(a_record(cache="hit", cost=Decimal(0), saved=Decimal("0.10"), cache_age=2.5, usage_source="none"))
    assert row.cost == {"total": Decimal(0)}  # without it the server would price the tokens itself
    assert (row.metadata["cache"], row.metadata["cache_age"], row.metadata["saved"]) == ("hit", 2.5, "0.10")


@settings(max_examples=200)
@given(record=records)
def test_for_any_record_the_server_shows_the_ledgers_cost_and_tokens(record: RequestRecord) -> None:
    record.cached_tokens = min(record.cached_tokens, record.input_tokens)
    record.reasoning_tokens = min(record.reasoning_tokens, record.output_tokens)
    row = observed(record)
    assert row.total_cost == record.cost
    assert row.total_usage == record.input_tokens + record.output_tokens
    if len(row.cost) > 1:
        with localcontext(Context(prec=200)):
            assert sum(value for key, value in row.cost.items() if key != "total") == record.cost
    assert sum(value for key, value in row.usage.items() if key != "total") == row.total_usage
    assert row.start <= row.end


def test_time_to_first_token_is_shown_for_a_stream_and_for_nothing_else() -> None:
    record = a_record()
    row = observed(record)
    assert row.completion_start_time is not None
    assert row.completion_start_time - row.start == pytest.approx(0.5, abs=0.001)
    assert observed(a_record(stream=False)).completion_start_time is None
    assert observed(a_record(first_token=None)).completion_start_time is None


def test_the_conventions_attributes_stand_alone() -> None:
    span = span_of(a_record())
    assert span.kind == "client"
    assert span.name == "chat smollm2"
    assert without_langfuse(span) == {
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
        "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.response.time_to_first_chunk": 0.5,
        "gen_ai.usage.input_tokens": 30,
        "gen_ai.usage.output_tokens": 11,
        "gen_ai.usage.cache_read.input_tokens": 16,
        "gen_ai.usage.reasoning.output_tokens": 3,
        "gen_ai.conversation.id": "s-1",
        "session.id": "s-1",
        "user.id": "u-1",
        "http.response.status_code": 200,
    }


def test_both_families_say_the_same() -> None:
    record = a_record()
    whole = observed(record)
    conventions = replace(span_of(record), attributes=without_langfuse(span_of(record)))
    alone = observation(conventions)
    assert (alone.type, alone.name, alone.model) == (whole.type, whole.name, whole.model)
    assert alone.usage == {key: value for key, value in whole.usage.items() if key != "total"}
    assert (alone.user_id, alone.session_id) == (whole.user_id, whole.session_id)
    assert alone.model_parameters.items() >= {"max_tokens": 64, "seed": 7, "temperature": 0.7}.items()


@pytest.mark.parametrize(
    ("operation", "name", "kind"),
    [
        ("chat", "chat m", "GENERATION"),
        ("completions", "text_completion m", "GENERATION"),
        ("embeddings", "embeddings m", "EMBEDDING"),
        ("score", "score m", "EMBEDDING"),
        ("tokenize", "tokenize m", "SPAN"),
        ("detokenize", "detokenize m", "SPAN"),
    ],
)
def test_an_operation_has_its_name_and_type(operation: str, name: str, kind: str) -> None:
    row = observed(a_record(operation=operation, model="m"))
    assert (row.name, row.type) == (name, kind)


def test_counting_tokens_is_served_and_uses_none() -> None:
    span = span_of(a_record(operation="tokenize"))
    assert span.kind == "server"
    assert not [key for key in span.attributes if "usage" in key and "usage_source" not in key]


@pytest.mark.parametrize(
    ("changes", "level", "message", "error_type"),
    [
        ({"status": "ok"}, "DEFAULT", None, None),
        (
            {"status": "error", "http_status": 502, "error_code": "engine_error"},
            "ERROR",
            "engine_error (HTTP 502)",
            "engine_error",
        ),
        ({"status": "error", "http_status": 400}, "ERROR", "400 (HTTP 400)", "400"),
        ({"status": "cancelled", "http_status": 499}, "WARNING", "the client disconnected", None),
        ({"status": "lost"}, "ERROR", "lost: the gateway died while the request was in progress", "lost"),
    ],
)
def test_how_it_ended_is_told(
    changes: dict[str, object], level: str, message: str | None, error_type: str | None
) -> None:
    record = a_record(**changes)
    row, span = observed(record), span_of(record)
    assert (row.level, row.status_message) == (level, message)
    assert span.attributes.get("error.type") == error_type
    assert (span.error is not None) == (level == "ERROR")
    assert row.metadata["status"] == record.status


def test_an_endpoint_that_failed_first_is_an_event() -> None:
    (event,) = span_of(a_record()).events
    assert event.attributes == {
        "endpoint": "smollm2#0",
        "error.type": "engine_unavailable",
        "http.response.status_code": 0,
    }


def test_the_same_record_is_always_the_same_span() -> None:
    record = a_record()
    assert span_of(record) == span_of(record)
    assert span_of(record).span_id != span_of(a_record()).span_id


@pytest.mark.parametrize("id", ["req_short", "anything", "req_" + "0" * 32, "req_" + "AB" * 16, ""])
def test_an_id_that_is_no_trace_id_still_makes_a_valid_one(id: str) -> None:
    span = span_of(a_record(id=id))
    assert len(span.trace_id) == 32
    assert int(span.trace_id, 16)
    assert int(span.span_id, 16)


def test_a_users_id_is_cut_to_what_langfuse_takes() -> None:
    row = observed(a_record(user="u" * 1000, session="s" * 1000))
    assert len(row.user_id or "") == len(row.session_id or "") == 200


def test_a_request_without_user_and_session_has_none() -> None:
    row = observed(a_record(user=None, session=None))
    assert (row.user_id, row.session_id) == (None, None)
