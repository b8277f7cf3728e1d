"""Span ids are the gateway's and the worker's alike, distinct, and never zero."""

from hypothesis import given
from hypothesis import strategies as st
from tests.records import a_record

from quarterdeck.record import CallerTrace
from quarterdeck.telemetry.traces import span_ids

hex32 = st.integers(1, 2**128 - 1).map(lambda number: f"{number:032x}")


@given(digits=hex32)
def test_ids_of_a_record_are_those_of_its_request_id(digits: str) -> None:
    record = a_record(id=f"req_{digits}")
    trace_id, seed = span_ids.ids_of(record)
    assert trace_id.hex() == digits
    assert seed == span_ids.span_seed(record.id)
    ids = {span_ids.span_id(seed, number) for number in range(1, 100)}
    assert len(ids) == 99
    assert bytes(8) not in ids


@given(digits=hex32, trace=hex32)
def test_a_callers_trace_changes_no_span_id(digits: str, trace: str) -> None:
    own, other = (
        a_record(id=f"req_{digits}"),
        a_record(id=f"req_{digits}", trace=CallerTrace(id=trace, parent="b" * 16)),
    )
    assert span_ids.ids_of(other) == (bytes.fromhex(trace), span_ids.ids_of(own)[1])


@given(id=st.text(max_size=60))
def test_any_id_makes_valid_ids(id: str) -> None:
    trace_id, seed = span_ids.ids_of(a_record(id=id))
    assert len(trace_id) == 16
    assert any(trace_id)
    assert any(span_ids.span_id(seed, 1))
