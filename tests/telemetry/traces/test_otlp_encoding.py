"""The bytes are those of protobuf's own library."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import ScopeSpans, Span

from quarterdeck.telemetry.traces import otlp_encoding as otlp

words = st.text(st.characters(codec="utf-8"), max_size=200)
int64 = st.integers(-(2**63), 2**63 - 1)


def attribute_of(encoded: bytes) -> KeyValue:
    """The only attribute of a span; its bytes must be the library's."""
    span = Span.FromString(encoded)
    assert span.SerializeToString() == encoded
    (attribute,) = span.attributes
    return attribute


@given(name=words.filter(bool), value=words)
def test_text(name: str, value: str) -> None:
    attribute = attribute_of(otlp.text(name)(value))
    assert (attribute.key, attribute.value.string_value) == (name, value)


@pytest.mark.parametrize("size", [0, 1, 90, 100, 110, 120, 121, 122, 123, 124, 125, 126, 127, 128, 129, 16_384, 70_000])
def test_text_of_any_length(size: int) -> None:
    assert attribute_of(otlp.text("a.b")("x" * size)).value.string_value == "x" * size


@given(value=int64)
@pytest.mark.parametrize("name", ["n", "n" * 111, "n" * 115, "n" * 300])
def test_integers_of_64_bits(name: str, value: int) -> None:
    assert attribute_of(otlp.integer(name)(value)).value.int_value == value


@given(value=st.floats(allow_nan=False))
def test_numbers(value: float) -> None:
    assert attribute_of(otlp.double("n")(value)).value.double_value == value


def test_booleans_and_infinity() -> None:
    assert attribute_of(otlp.boolean("b")(True)).value.bool_value is True
    assert attribute_of(otlp.boolean("b")(False)).value.WhichOneof("value") == "bool_value"
    assert attribute_of(otlp.double("n")(math.inf)).value.double_value == math.inf


@given(values=st.lists(words, max_size=5))
def test_lists_of_texts(values: list[str]) -> None:
    attribute = attribute_of(otlp.texts("tags")(values))
    assert [each.string_value for each in attribute.value.array_value.values] == values


@given(
    name=words.filter(bool),
    message=words,
    times=st.tuples(*[st.integers(1, 2**63)] * 2),
    state=st.sampled_from(["", "vendor=1,other=2"]),
    has_parent=st.booleans(),
    flags=st.sampled_from([1, 0x101, 0x301]),
)
def test_a_span_in_an_export(
    name: str, message: str, times: tuple[int, int], state: str, has_parent: bool, flags: int
) -> None:
    attributes = otlp.text("a")("b")
    parts = otlp.span(
        otlp.span_ids(b"t" * 16),
        b"s" * 8,
        otlp.span_parent(b"p" * 8 if has_parent else b"", state.encode()),
        otlp.span_name(name),
        otlp.SPAN_KIND_SERVER,
        *times,
        attributes,
        otlp.integer("c")(1) + otlp.error_status(message) + otlp.span_flags(flags),
    )
    encoded = b"".join(parts)
    scope = ScopeSpans.FromString(encoded)
    assert scope.SerializeToString() == encoded
    (span,) = scope.spans
    assert (span.trace_id, span.span_id, span.parent_span_id) == (b"t" * 16, b"s" * 8, b"p" * 8 if has_parent else b"")
    assert (span.name, span.kind, span.trace_state, span.flags) == (name, Span.SPAN_KIND_SERVER, state, flags)
    assert (span.start_time_unix_nano, span.end_time_unix_nano) == times
    assert [attribute.key for attribute in span.attributes] == ["a", "c"]
    assert (span.status.code, span.status.message) == (2, message)
    resource = otlp.resource_attribute("service.name", "quarterdeck")
    head = otlp.export_request(resource, otlp.instrumentation_scope("scope", "1"), 2 * len(encoded))
    whole = head + encoded + encoded
    request = ExportTraceServiceRequest.FromString(whole)
    assert request.SerializeToString() == whole
    assert len(request.resource_spans[0].scope_spans[0].spans) == 2
