"""The oracle itself, checked on examples worked out by hand from the server's rules."""

from decimal import Decimal
from typing import Any

import pytest
from tests.telemetry.langfuse_oracle import Observation, observation_of


def seen(resource: dict[str, Any] | None = None, /, **attributes: Any) -> Observation:
    """A keyword `a__b` is the attribute `a.b`."""
    return observation_of(
        trace_id="1" * 32,
        span_id="2" * 16,
        parent_id=None,
        name="span",
        start_ns=10**18,
        end_ns=10**18,
        status_code=attributes.pop("status_code", 0),
        status_message="",
        attributes={key.replace("__", "."): value for key, value in attributes.items()},
        resource=resource or {},
    )


@pytest.mark.parametrize(
    ("attributes", "kind"),
    [
        ({}, "SPAN"),
        ({"gen_ai__operation__name": "chat"}, "GENERATION"),
        ({"gen_ai__operation__name": "embeddings"}, "EMBEDDING"),
        ({"gen_ai__operation__name": "retrieval"}, "SPAN"),
        ({"gen_ai__operation__name": "retrieval", "gen_ai__request__model": "m"}, "GENERATION"),
        ({"gen_ai__tool__name": "search"}, "TOOL"),
        ({"langfuse__observation__type": "retriever", "gen_ai__operation__name": "chat"}, "RETRIEVER"),
        ({"langfuse__observation__type": "nonsense", "gen_ai__operation__name": "chat"}, "GENERATION"),
    ],
)
def test_type(attributes: dict[str, Any], kind: str) -> None:
    assert seen(**attributes).type == kind


def test_usage_of_the_conventions_becomes_buckets_that_do_not_overlap() -> None:
    row = seen(
        gen_ai__usage__input_tokens=100,
        gen_ai__usage__output_tokens=50,
        gen_ai__usage__cache_read__input_tokens=30,
        gen_ai__usage__reasoning__output_tokens=20,
    )
    assert row.usage == {"input": 70, "output": 30, "input_cached_tokens": 30, "output_reasoning_tokens": 20}
    assert row.total_usage == 150


def test_told_usage_goes_first_and_what_is_no_count_is_left_out() -> None:
    row = seen(
        langfuse__observation__usage_details='{"input": 3, "output": 1.5, "x": -1, "total": 3}',
        gen_ai__usage__input_tokens=100,
    )
    assert row.usage == {"input": 3, "total": 3}


def test_broken_usage_falls_through() -> None:
    row = seen(langfuse__observation__usage_details="{", gen_ai__usage__input_tokens=100)
    assert row.usage == {"input": 100}


def test_a_total_is_taken_as_told_and_else_input_and_output() -> None:
    assert seen(langfuse__observation__cost_details='{"input": 1, "x": 5, "total": 2}').total_cost == 2
    assert seen(langfuse__observation__cost_details='{"input": 0.1, "output": 0.2}').total_cost == Decimal("0.3")


def test_without_any_cost_the_server_computes_its_own() -> None:
    assert seen(gen_ai__request__model="m").cost == {}


def test_a_prompt_is_linked_to_a_generation_only() -> None:
    prompt = {"langfuse__observation__prompt__name": "p", "langfuse__observation__prompt__version": 3}
    assert seen(gen_ai__operation__name="chat", **prompt).prompt == ("p", 3)
    assert seen(**prompt).prompt is None


def test_time_to_first_chunk_is_ignored() -> None:
    assert seen(gen_ai__response__time_to_first_chunk=0.5).completion_start_time is None


def test_environment_of_the_span_goes_before_the_resources() -> None:
    assert seen({"deployment.environment.name": "staging"}).environment == "staging"
    assert seen({"deployment.environment.name": "staging"}, langfuse__environment="test").environment == "test"


def test_a_status_of_error_is_the_level() -> None:
    assert seen(status_code=2).level == "ERROR"


def test_tags_come_as_a_list_as_json_or_with_commas() -> None:
    for tags in (["a", "b"], '["a", "b"]', "a, b"):
        assert seen(langfuse__trace__tags=tags).tags == ["a", "b"]
