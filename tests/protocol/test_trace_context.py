"""traceparent and tracestate as W3C's Trace Context has them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quarterdeck.protocol.trace_context import MAX_STATE, TraceContext, read_trace_context

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
VALID = f"00-{TRACE}-{SPAN}-01".encode()


def test_a_valid_parent() -> None:
    assert read_trace_context(VALID) == TraceContext(TRACE, SPAN, True)
    assert read_trace_context(VALID[:-2] + b"00") == TraceContext(TRACE, SPAN, False)


@pytest.mark.parametrize("flags", ["03", "ff", "09"])
def test_unknown_flags_are_ignored(flags: str) -> None:
    assert read_trace_context(VALID[:-2] + flags.encode()) == TraceContext(TRACE, SPAN, True)


@pytest.mark.parametrize("value", [b"cc-" + VALID[3:], b"01-" + VALID[3:] + b"-what-the-future", b"fe-" + VALID[3:]])
def test_a_later_version_is_read_as_this_one(value: bytes) -> None:
    assert read_trace_context(value) == TraceContext(TRACE, SPAN, True)


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"garbage",
        b"ff-" + VALID[3:],
        VALID + b"-more",
        VALID + b"0",
        VALID[:-1],
        VALID.upper(),
        VALID.replace(b"-", b"_"),
        b"00-" + b"0" * 32 + b"-00f067aa0ba902b7-01",
        b"00-4bf92f3577b34da6a3ce929d0e0e4736-" + b"0" * 16 + b"-01",
        b"00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01",
        b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b-01",
        b"00-4bf92f3577b34da6a3ce929d0e0e473g-00f067aa0ba902b7-01",
        b"cc-" + VALID[3:] + b".what",
        VALID + b"\n",
        VALID + b"," + VALID,
        b"\xff" * 55,
    ],
)
def test_a_malformed_parent_is_ignored_and_its_state_too(value: bytes) -> None:
    assert read_trace_context(value, b"vendor=1") is None


@given(value=st.binary(max_size=80))
def test_no_bytes_raise(value: bytes) -> None:
    read_trace_context(value, value)
    read_trace_context(VALID, value)


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (b"vendor=1", "vendor=1"),
        (b"a=1,b=2", "a=1,b=2"),
        (b" a=1 , ,b=2 ", "a=1,b=2"),
        (b"tenant@system=x", "tenant@system=x"),
        (b"a=1,a=2", ""),
        (b"A=1", ""),
        (b"a=", ""),
        (b"a", ""),
        (b"a=\xc3\xa9", ""),
        (b"a=1\r\nx-evil: 1", ""),
        (b",".join(b"k%d=v" % number for number in range(33)), ""),
    ],
)
def test_a_state_is_passed_on_whole_or_not_at_all(given: bytes, kept: str) -> None:
    context = read_trace_context(VALID, given)
    assert context is not None
    assert context.state == kept


def test_a_long_state_loses_its_last_members() -> None:
    members = [f"k{number}={'v' * 100}" for number in range(10)]
    context = read_trace_context(VALID, ",".join(members).encode())
    assert context is not None
    assert context.state == ",".join(members[:4])
    assert len(context.state) <= MAX_STATE


def test_the_headers_of_a_call_can_be_read_again() -> None:
    context = TraceContext(TRACE, SPAN, False, "vendor=1")
    headers = dict(context.parent_of("0" * 32, "1" * 16))
    assert read_trace_context(headers[b"traceparent"], headers[b"tracestate"]) == TraceContext(
        TRACE, "1" * 16, False, "vendor=1"
    )
    own = dict(TraceContext().parent_of("2" * 32, "1" * 16))
    assert own == {b"traceparent": b"00-" + b"2" * 32 + b"-" + b"1" * 16 + b"-01"}
