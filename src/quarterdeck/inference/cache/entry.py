"""An answer that is kept, and how it is given again: the original bytes, its id and `created` as they were.

A second answer with a new id would not be the answer that was cached, and nobody could say which one was; the request
has an id of its own (`x-request-id`). A stream's events are replayed as they came, joined to larger pieces: what is
known whole need not be written token by token.

In Redis a stream is packed: nine tenths of it is what each event repeats.
"""

import re
import zlib
from decimal import Decimal

import msgspec

from quarterdeck.inference.call import Reply, Sink
from quarterdeck.protocol import sse
from quarterdeck.protocol.stream_usage import split_usage
from quarterdeck.record import RequestRecord

MAX_UNPACKED = 64 * 1024 * 1024
"""Bytes of a stream that is unpacked: far more than a policy lets in, and less than what a bomb would take."""
PIECE_BYTES = 16 * 1024
"""A replayed stream is written in pieces of about this size, so that a slow reader holds no more than that."""
FINISHED = frozenset((b"stop", b"length", b"tool_calls", b"function_call"))
"""Ends of an answer that the next one would have as well; `length` is the caller's own limit, which is in the key."""
_FINISH = (b'"finish_reason":"', b'"finish_reason": "')
_FINISHES = re.compile(rb'"finish_reason": ?"([^"\\]*)"')


class Entry(msgspec.Struct, frozen=True, array_like=True, tag=3, gc=False):
    """A whole answer. Times are Unix seconds. The tag is the format's version: one of another is no entry."""

    made: float
    model: str
    body: bytes
    content_type: bytes = b"application/json"
    is_stream: bool = False
    cost: Decimal = Decimal(0)
    """$ that the answer cost, which a hit saves."""
    input_tokens: int = 0
    output_tokens: int = 0
    response_id: str | None = None
    finish_reason: str | None = None
    packed_from: int = 0
    """Only of a stream as it is stored: the bytes that `body` unpacks to."""

    def age(self, now: float) -> float:
        return max(0.0, now - self.made)

    def events(self, *, shows_usage: bool) -> bytes:
        """A stream's bytes, as this client shall see them."""
        return self.body if shows_usage else split_usage(self.body, shows_usage=False)[2]


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Entry).decode


def encode(entry: Entry) -> bytes:
    """What is stored: a stream's entry is packed."""
    if entry.is_stream:
        body = entry.body
        packer = zlib.compressobj(1, zlib.DEFLATED, zlib.MAX_WBITS, 4)  # as little to prepare as there can be
        packed = packer.compress(body) + packer.flush()
        entry = msgspec.structs.replace(entry, body=packed, packed_from=len(body))
    return _encode(entry)


def decode(blob: bytes) -> Entry | None:
    """None for what no gateway of this version has written, and for what is damaged."""
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
    if len(body) != size or not unpacker.eof or unpacker.unused_data:  # the end has a checksum
        return None
    return msgspec.structs.replace(entry, body=body, packed_from=0)


def entry_of(record: RequestRecord, body: bytes, content_type: bytes, *, choices: int = 1) -> Entry | None:
    """What is kept of a finished request; None where its answer must not stand for another.

    `body` is the answer as the engine gave it: for a stream all its events, those included that the client did not see.
    `choices`: how many answers were asked for; 0 where the operation makes none (embeddings).
    """
    if record.status != "ok" or record.http_status != 200 or record.resumed or record.cache == "hit":
        return None
    if choices and not _has_ended(body, choices):
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


def _has_ended(body: bytes, choices: int) -> bool:
    """Whether all choices have, each as the next answer's would."""
    if choices > 1:
        finishes = _FINISHES.findall(body)
        return len(finishes) >= choices and FINISHED.issuperset(finishes)
    for pattern in _FINISH:
        # From behind, where it is; and where it isn't, CPython skips by the pattern's length.
        if (at := body.rfind(pattern)) >= 0:
            at += len(pattern)
            return body[at : body.find(b'"', at)] in FINISHED
    return False


class Replay:
    """A stream out of the cache: whole events, in pieces that a slow reader can take one by one."""

    __slots__ = ("_at", "_body")

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._at = 0

    async def pump(self, sink: Sink) -> None:
        body = self._body
        while (start := self._at) < len(body):
            end = len(body)
            if end - start > PIECE_BYTES:
                end = body.find(b"\n\n", start + PIECE_BYTES) + 2
                if end == 1:  # not found
                    end = len(body)
            self._at = end
            if not sink.put(body[start:end]):
                await sink.room()

    async def aclose(self) -> None:
        self._at = len(self._body)


def replay(
    entry: Entry,
    now: float,
    *,
    shows_usage: bool,
    headers: tuple[tuple[bytes, bytes], ...] = (),
) -> Reply:
    """The answer once more; `headers` are the reply's others."""
    told = (
        (b"content-type", entry.content_type),
        (b"x-cache", b"hit"),
        (b"age", b"%d" % entry.age(now)),
        *headers,
    )
    if not entry.is_stream:
        return Reply(200, told, entry.body)
    return Reply(200, told + sse.UNBUFFERED, stream=Replay(entry.events(shows_usage=shows_usage)))


def hit(record: RequestRecord, entry: Entry, now: float) -> RequestRecord:
    """The record of a request that `entry` answered: no model ran for it, so it has no tokens and costs nothing."""
    return msgspec.structs.replace(
        record,
        cache="hit",
        cache_age=entry.age(now),
        saved=entry.cost,
        cost=Decimal(0),
        finish_reason=entry.finish_reason,
        response_id=entry.response_id,
        first_token=now,
    )
