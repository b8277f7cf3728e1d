"""Answers a request from a cache entry: the original bytes, with the original id and `created`.

A new id would make it a different answer that can't be traced to the cached one; the request has its own id
(`x-request-id`). A stream's events are unchanged, but sent in larger pieces: they are all there at once.
"""

from decimal import Decimal

import msgspec

from quarterdeck.inference.cache.entry import Entry
from quarterdeck.inference.call import Reply, Sink
from quarterdeck.protocol import sse
from quarterdeck.protocol.stream_usage import split_usage
from quarterdeck.record import RequestRecord

PIECE_BYTES = 16 * 1024
"""About the size of a replayed stream's pieces. It bounds what is buffered for a slow client."""


class Replay:
    """A stream from the cache: whole events, in pieces."""

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


def make_reply(
    entry: Entry,
    now: float,
    *,
    shows_usage: bool,
    headers: tuple[tuple[bytes, bytes], ...] = (),
) -> Reply:
    """The answer again, with additional `headers`. `shows_usage`: whether a stream includes its usage chunk."""
    headers = (
        (b"content-type", entry.content_type),
        (b"x-cache", b"hit"),
        (b"age", b"%d" % entry.age(now)),
        *headers,
    )
    if not entry.is_stream:
        return Reply(200, headers, entry.body)
    body = entry.body if shows_usage else split_usage(entry.body, shows_usage=False)[2]
    return Reply(200, headers + sse.UNBUFFERED, stream=Replay(body))


def hit_record(record: RequestRecord, entry: Entry, now: float) -> RequestRecord:
    """The record of a request answered from `entry`. No model ran, so it has no tokens and no cost."""
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
