"""Ids of a request's trace and spans, derived from its record, so that a record delivered twice is the same trace.

A span's id is the second half of the request's id, which is random, combined with the span's number. The gateway makes
the same id for `traceparent` while the request runs, which an 8-byte hash would cost it a microsecond for.
"""

import hashlib
import re

from quarterdeck.record import RequestRecord

ROOT, PROMPT, ADMISSION, CACHE, QUEUE, CALL, FIRST_ATTEMPT = range(1, 8)
"""Numbers of a request's spans. Its attempts follow FIRST_ATTEMPT."""

_REQUEST_ID = re.compile(r"req_(?!0{32})[0-9a-f]{32}")
_TRACE_ID = re.compile(r"(?!0{32})[0-9a-f]{32}")
_UINT64 = 2**64 - 1
_SPREAD = 0x9E3779B97F4A7C15
"""2⁶⁴ divided by the golden ratio: multiples of it have no bits in common."""


def ids_of(record: RequestRecord) -> tuple[bytes, int]:
    """The record's trace id and the seed of its span ids."""
    if record.trace is None and _REQUEST_ID.fullmatch(record.id):
        trace_id = bytes.fromhex(record.id[4:])
        return trace_id, int.from_bytes(trace_id[8:], "big")
    return trace_id_of(record), span_seed(record.id)


def trace_id_of(record: RequestRecord) -> bytes:
    """16 bytes. Derived from the record's id where that is not a trace id: Langfuse would refuse the whole export."""
    id = record.trace_id
    return bytes.fromhex(id) if _TRACE_ID.fullmatch(id) else _hash(record.id, 16)


def span_seed(request_id: str) -> int:
    """What all span ids of a request are made of."""
    if _REQUEST_ID.fullmatch(request_id):
        return int(request_id[20:], 16)
    return int.from_bytes(_hash(request_id, 8), "big")


def span_id(seed: int, number: int) -> bytes:
    """8 bytes, never all zero."""
    return ((seed ^ number * _SPREAD & _UINT64) or 1).to_bytes(8, "big")


def _hash(text: str, size: int) -> bytes:
    return hashlib.blake2b(text.encode(errors="replace"), digest_size=size, person=b"quarterdeck").digest()
