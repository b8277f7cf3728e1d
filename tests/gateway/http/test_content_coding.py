"""Compressed bodies are decoded within the bounds of plain ones, or refused with what is accepted."""

import gzip
import json
import zlib
from collections.abc import AsyncIterator

import pytest
from tests.gateway.fakes import ADMIN
from tests.gateway.http.connections import HEAD, Bench, Peer, serving

MIB = 1024 * 1024
BODY = b'{"model":"chat","messages":[{"role":"user","content":"' + b"hello " * 100 + b'"}]}'


def gzipped(data: bytes) -> bytes:
    """Without the time: it would be part of the tests' names."""
    return gzip.compress(data, mtime=0)


def raw(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()


@pytest.fixture
async def bench(way: str) -> AsyncIterator[Bench]:
    async with serving(way, max_body_mb=1, max_media_body_mb=1) as made:
        yield made


async def send(bench: Bench, body: bytes, coding: str) -> Peer:
    peer = await bench.connect()
    await peer.send(HEAD + f"content-encoding: {coding}\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body)
    return peer


@pytest.mark.parametrize(
    ("coding", "body"),
    [
        ("gzip", gzipped(BODY)),
        ("GZIP", gzipped(BODY)),
        ("x-gzip", gzipped(BODY[:100]) + gzipped(BODY[100:])),
        ("deflate", zlib.compress(BODY)),
        ("deflate", raw(BODY)),
        ("identity", BODY),
    ],
)
async def test_a_compressed_body_is_decoded(bench: Bench, coding: str, body: bytes) -> None:
    peer = await send(bench, body, coding)
    assert await peer.answer() == (200, {"ok": True})
    assert bench.pipeline.calls[0][1] == BODY


async def test_a_compressed_body_in_chunks_is_decoded(bench: Bench) -> None:
    packed = gzipped(BODY)
    peer = await bench.connect()
    head = HEAD + b"content-encoding: gzip\r\ntransfer-encoding: chunked\r\n\r\n"
    await peer.send(head + b"%x\r\n%b\r\n0\r\n\r\n" % (len(packed), packed))
    assert await peer.answer() == (200, {"ok": True})
    assert bench.pipeline.calls[0][1] == BODY


@pytest.mark.parametrize("coding", ["zstd", "br", "compress", "gzip, gzip", "gzip;q=1", "nonsense"])
async def test_another_coding_is_a_415_that_lists_those_accepted(bench: Bench, coding: str) -> None:
    peer = await send(bench, gzipped(BODY), coding)
    answer = await peer.reader.read()
    assert answer.startswith(b"HTTP/1.1 415")
    assert b"\r\naccept-encoding: gzip, deflate\r\n" in answer
    assert json.loads(answer.split(b"\r\n\r\n")[1])["error"]["code"] == "unsupported_content_encoding"
    assert bench.pipeline.calls == []


@pytest.mark.parametrize(
    "bomb",
    [
        gzipped(b"\0" * 100 * MIB),
        gzipped(b"\0" * (MIB + 1)),
        b"".join(gzipped(b"\0" * MIB) for _ in range(3)),
    ],
    ids=["a hundred MiB", "one byte too many", "in members"],
)
async def test_a_body_that_becomes_too_large_is_a_413(bench: Bench, bomb: bytes) -> None:
    peer = await send(bench, bomb, "gzip")
    assert await peer.code() == (413, "request_too_large")


@pytest.mark.parametrize("body", [b"{}", gzipped(BODY)[:-4], gzipped(BODY) + b"x", gzipped(b"") * 1000])
async def test_what_is_no_gzip_is_a_400(bench: Bench, body: bytes) -> None:
    peer = await send(bench, body, "gzip")
    assert await peer.code() == (400, "invalid_content_encoding")
    assert bench.pipeline.calls == []


async def test_objects_of_the_admin_api_may_be_compressed_too(bench: Bench) -> None:
    body = gzipped(b'{"name": "x", "nonsense": 1}')
    head = f"POST /admin/keys HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\napi-key: {ADMIN}\r\n"
    for coding, code in (("gzip", (400, "unknown_parameter")), ("br", (415, "unsupported_content_encoding"))):
        peer = await bench.connect()
        await peer.send(f"{head}content-encoding: {coding}\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body)
        assert await peer.code() == code
