"""A cached answer: what is stored of it, and its encoding in Redis.

The engine's bytes are stored unchanged, including the answer's id and `created`. A stream is compressed: nine tenths of
it repeats from event to event.
"""

import re
import zlib
from decimal import Decimal

import msgspec

from quarterdeck.protocol import sse
from quarterdeck.record import RequestRecord

MAX_UNPACKED = 64 * 1024 * 1024
"""The largest stream that is decompressed, in bytes: far above any policy's limit, and a bound for a zip bomb."""
FINISHED = frozenset((b"stop", b"length", b"tool_calls", b"function_call"))
"""Finish reasons that a repeated request would also have. `length` is the client's own limit, which is in the key."""
_FINISH = (b'"finish_reason":"', b'"finish_reason": "')
_FINISHES = re.compile(rb'"finish_reason": ?"([^"\\]*)"')


class Entry(msgspec.Struct, frozen=True, array_like=True, tag=3, gc=False):
    """A complete answer. Times are Unix seconds. The tag is the format's version: other versions are not decoded."""

    made: float
    model: str
    body: bytes
    content_type: bytes = b"application/json"
    is_stream: bool = False
    cost: Decimal = Decimal(0)
    """What the answer cost in $, which a hit saves."""
    input_tokens: int = 0
    output_tokens: int = 0
    response_id: str | None = None
    finish_reason: str | None = None
    packed_from: int = 0
    """Of a stored stream: the size of the decompressed `body`, in bytes."""

    def age(self, now: float) -> float:
        """Seconds."""
        return max(0.0, now - self.made)


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Entry).decode


def encode(entry: Entry) -> bytes:
    """The stored form. Streams are compressed."""
    if entry.is_stream:
        body = entry.body
        packer = zlib.compressobj(1, zlib.DEFLATED, zlib.MAX_WBITS, 4)  # little memory, which is quick to set up
        packed = packer.compress(body) + packer.flush()
        entry = msgspec.structs.replace(entry, body=packed, packed_from=len(body))
    return _encode(entry)


def decode(blob: bytes) -> Entry | None:
    """None for another version's entry, and for damaged data."""
    try:
        entry = _decode(blob)
        if not entry.is_stream:
            return entry
        size = entry.packed_from
        if not 0 <= size <= MAX_UNPACKED:
            return None
        unpacker = zlib.decompressobj()
        body = unpacker.decompress(entry.body, size + 1)
    except (msgspec.DecodeError, UnicodeDecodeError, zlib.error):
        return None
    if len(body) != size or not unpacker.eof or unpacker.unused_data:  # the checksum is at the end
        return None
    return msgspec.structs.replace(entry, body=body, packed_from=0)


def make_entry(record: RequestRecord, body: bytes, content_type: bytes, *, choices: int = 1) -> Entry | None:
    """The entry of a finished request. None if its answer must not be reused.

    `body` is the answer as the engine sent it; for a stream all events, including those hidden from the client.
    `choices` is the number of requested choices; 0 for operations without any (embeddings).
    """
    if record.status != "ok" or record.http_status != 200 or record.resumed or record.cache == "hit":
        return None
    if choices and not _has_finished(body, choices):
        return None
    if record.stream and not body.endswith(sse.DONE) and sse.end_of_done(body) < 0:
        return None
    return Entry(
        made=record.ended,
        model=record.model,
        body=body,
        content_type=content_type,
        is_stream=record.stream,
        cost=record.cost,
        input_tokens=record.input_tokens,
        output_tokens=record.output_tokens,
        response_id=record.response_id,
        finish_reason=record.finish_reason,
    )


def _has_finished(body: bytes, choices: int) -> bool:
    """Whether every choice has a finish reason in FINISHED."""
    if choices > 1:
        finishes = _FINISHES.findall(body)
        return len(finishes) >= choices and FINISHED.issuperset(finishes)
    for pattern in _FINISH:
        # From the end, which it is near; where it is absent, CPython's search skips by the pattern's length.
        if (at := body.rfind(pattern)) >= 0:
            at += len(pattern)
            return body[at : body.find(b'"', at)] in FINISHED
    return False
