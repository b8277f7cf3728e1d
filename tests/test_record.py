"""Records are encoded and decoded without loss."""

from decimal import Decimal

import msgspec
import pytest
from hypothesis import given
from tests.records import a_record, records

from quarterdeck.record import RequestRecord, decode, encode


@given(records)
def test_a_record_comes_back_as_it_was(record: RequestRecord) -> None:
    assert decode(encode(record)) == record


def test_money_stays_exact() -> None:
    record = a_record(cost=Decimal("0.100000000000000000000000000001"))
    assert str(decode(encode(record)).cost) == "0.100000000000000000000000000001"


def test_a_record_is_one_line_of_json() -> None:
    assert b"\n" not in encode(a_record(user="two\nlines"))


def test_a_newer_gateways_record_is_read_by_an_older_worker() -> None:
    data = encode(a_record())
    newer = data[:-1] + b',"a_field_of_tomorrow":{"x":[1]}}'
    assert decode(newer) == decode(data)


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", encode(a_record())[:-1]])
def test_what_is_no_record_is_refused(data: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        decode(data)


def test_its_trace_id_is_its_own_id() -> None:
    record = a_record(id="req_" + "ab" * 16)
    assert record.trace_id == "ab" * 16
