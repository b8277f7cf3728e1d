"""A trace backend that counts spans: `python loadtests/bench/sink.py PORT`.

It answers 200 to every export on any path, and on GET returns the numbers of spans and traces. It stands for another
machine but shares a core with the drivers, so it runs at idle priority and only walks over protobuf lengths to find
trace ids, without decoding.
"""

import asyncio
import gzip
import json
import os
import sys
from collections.abc import Iterator

_BYTES = 2
"""Protobuf wire type of length-delimited fields."""


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


def _fields(data: bytes, start: int, end: int, wanted: int) -> Iterator[tuple[int, int]]:
    """Start and end of the contents of the fields with this number. OTLP's three outer messages hold no others."""
    at = start
    while at < end:
        tag, at = _varint(data, at)
        kind = tag & 7
        if kind == _BYTES:
            length, at = _varint(data, at)
            if tag >> 3 == wanted:
                yield at, at + length
            at += length
        elif kind == 0:
            _, at = _varint(data, at)
        else:
            at += 8 if kind == 1 else 4


def trace_ids(body: bytes) -> list[bytes]:
    """The trace ids of all spans in an ExportTraceServiceRequest, in order."""
    found: list[bytes] = []
    for resource in _fields(body, 0, len(body), 1):
        for scope in _fields(body, *resource, 2):
            for span in _fields(body, *scope, 2):
                begin, end = next(_fields(body, *span, 1))
                found.append(body[begin:end])
    return found


class Sink(asyncio.Protocol):
    """One connection; all share the counts."""

    def __init__(self, traces: set[bytes], spans: list[int]) -> None:
        self._traces, self._spans = traces, spans
        self._data = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._data += data
        while (end := self._data.find(b"\r\n\r\n")) >= 0:
            head = bytes(self._data[:end]).lower()
            _, named, after = head.partition(b"content-length:")
            length = int(after.split(b"\r\n")[0]) if named else 0
            if len(self._data) < end + 4 + length:
                return
            body = bytes(self._data[end + 4 : end + 4 + length])
            del self._data[: end + 4 + length]
            self._answer(head, body)

    def _answer(self, head: bytes, body: bytes) -> None:
        if head.startswith(b"post "):
            ids = trace_ids(gzip.decompress(body) if b"content-encoding: gzip" in head else body)
            self._spans[0] += len(ids)
            self._traces.update(ids)
            text = b"{}"
        else:
            text = json.dumps({"spans": self._spans[0], "traces": len(self._traces)}).encode()
        said = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(text), text)
        assert isinstance(self._transport, asyncio.Transport)
        self._transport.write(said)


async def main(port: int) -> None:
    traces: set[bytes] = set()
    spans = [0]
    server = await asyncio.get_running_loop().create_server(lambda: Sink(traces, spans), "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    asyncio.run(main(int(sys.argv[1])))
