"""What the meter takes from an answer, and the record that it makes."""

from decimal import Decimal
from typing import Any

import msgspec
import pytest
from tests.inference.making import (
    CHAT,
    a_head,
    a_meter,
    a_principal,
    a_request,
    an_endpoint,
    answer,
    as_json,
    delta,
    served,
    usage,
)

from quarterdeck.errors import EngineError
from quarterdeck.inference.estimation import estimate
from quarterdeck.inference.metering.meter import MAX_TEXT, Meter, error_code
from quarterdeck.inference.streaming.tap import StreamTap
from quarterdeck.protocol.usage import Usage, parse_answer
from quarterdeck.record import Attempt
from quarterdeck.settings.prices import Price


def read(meter: Meter, body: bytes) -> None:
    meter.take_answer(parse_answer(body), body)


def test_a_whole_answer_gives_usage_reason_and_id() -> None:
    meter = a_meter()
    read(meter, answer())
    assert (meter.usage, meter.finish_reason, meter.response_id) == (Usage(7, 0, 3, 0), "stop", "chatcmpl-1")
    assert meter.transcript is None


def test_a_whole_answer_without_a_usage_leaves_its_text_to_be_counted() -> None:
    meter = a_meter()
    read(meter, answer("Hello there", usage=None))
    assert meter.usage is None
    assert meter.transcript is not None
    assert meter.transcript.text() == "Hello there"


def test_a_record_says_all_that_is_known() -> None:
    asked = CHAT | {"stream": True, "max_tokens": 9, "temperature": 0.5, "top_p": 0.9, "seed": 7, "user": "u-1"}
    asked |= {"metadata": {"session_id": "s-1", "other": 1}}
    head = a_head(principal=a_principal(team="red"), started=10.0)
    meter = a_meter(asked, head=head, endpoint=an_endpoint(), engine_started=11.0, first_token=12.0)
    meter.attempts.append(Attempt("e#1", 11.0, 13.0, 200))
    meter.take_usage(Usage(1000, 400, 100, 30))
    record = meter.record("ok", 13.0)
    assert (record.id, record.org, record.team, record.key, record.key_name) == (
        head.request_id,
        "default",
        "red",
        "key_1",
        "laptop",
    )
    assert (record.operation, record.model, record.endpoint, record.stream) == ("chat", "m", "e#1", True)
    assert (record.started, record.first_token, record.ended) == (10.0, 12.0, 13.0)
    assert (record.status, record.http_status, record.error_code) == ("ok", 200, None)
    assert (record.input_tokens, record.cached_tokens, record.output_tokens, record.reasoning_tokens) == (
        1000,
        400,
        100,
        30,
    )
    assert record.cost == (600 * Decimal(1) + 400 * Decimal("0.5") + 100 * Decimal(2)) / 1_000_000
    assert (record.price_input, record.price_cached, record.price_output) == (Decimal(1), Decimal("0.5"), Decimal(2))
    assert (record.user, record.session, record.max_tokens) == ("u-1", "s-1", 9)
    assert (record.temperature, record.top_p, record.seed, record.usage_source) == (0.5, 0.9, 7, "engine")
    assert record.attempts == (Attempt("e#1", 11.0, 13.0, 200),)


@pytest.mark.parametrize(
    ("asked", "field", "value"),
    [
        ({"user": "a", "safety_identifier": "b"}, "user", "b"),
        ({"user": "x" * 100_000}, "user", "x" * MAX_TEXT),
        ({"metadata": {"session_id": "y" * 100_000}}, "session", "y" * MAX_TEXT),
        ({"metadata": {"session_id": 7}}, "session", None),
        ({"metadata": {}}, "session", None),
        ({"max_tokens": 5, "max_completion_tokens": 7}, "max_tokens", 7),
    ],
)
def test_what_a_caller_says_of_itself_is_taken_in_bounds(asked: dict[str, Any], field: str, value: object) -> None:
    assert getattr(a_meter(CHAT | asked).record("ok", 1.0), field) == value


def test_what_an_engine_says_is_taken_in_bounds() -> None:
    meter = a_meter()
    read(meter, answer(id="i" * 100_000))
    assert meter.record("ok", 1.0).response_id == "i" * MAX_TEXT


def test_a_request_that_no_engine_saw_costs_nothing() -> None:
    record = a_meter().record("error", 1.0, http_status=503, error="engine_unavailable")
    assert (record.cost, record.usage_source, record.endpoint, record.first_token) == (Decimal(0), "none", "", None)
    assert (record.status, record.http_status, record.error_code) == ("error", 503, "engine_unavailable")


def test_a_note_guesses_what_a_gateway_that_dies_now_could_not_count() -> None:
    meter = a_meter(endpoint=an_endpoint(), engine_started=1.0)
    body = as_json(CHAT)
    before = meter.note(2.0)
    assert (before.status, before.input_tokens, before.usage_source, before.cost) == ("lost", 0, "none", Decimal(0))
    meter.first_token = 2.0
    tap = StreamTap(meter, shows_usage=False)
    for _ in range(5):
        tap.look(delta("word "))
    during = meter.note(3.0)
    assert (during.input_tokens, during.output_tokens, during.usage_source) == (-(-len(body) // 4), 5, "estimated")
    assert during.cost > 0
    assert meter.usage is None
    tap.look(usage(7, 3))
    after = meter.note(4.0)
    assert (after.input_tokens, after.output_tokens, after.usage_source) == (7, 3, "engine")


def test_an_error_has_a_word() -> None:
    assert error_code(EngineError("x", code="because")) == "because"
    assert error_code(EngineError("x")) == "engine_error"


def test_no_more_time_is_billed_than_was_held() -> None:
    timed = served(price=Price(gpu_hour=Decimal(36)))
    reserved = msgspec.structs.replace(estimate(a_request()), engine_seconds=2.0)
    meter = a_meter(reserved=reserved, engine_started=1000.0, endpoint=an_endpoint(max_running=4))
    meter.served = timed
    assert meter.record("ok", 1004.0).cost == Decimal("0.01")
    assert meter.record("ok", 1008.0).cost == meter.record("ok", 2000.0).cost == Decimal("0.02")
