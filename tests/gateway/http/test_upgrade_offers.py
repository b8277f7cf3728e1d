"""Offers to upgrade a connection are ignored, and no byte of a body is parsed as a request."""

import asyncio
import random
import shutil
from pathlib import Path

import pytest
from tests.gateway.fakes import USER, FakeStream
from tests.gateway.http.connections import HEAD, REQUEST, Bench, Peer

from quarterdeck.gateway.http.front import MAX_WAITING
from quarterdeck.inference.call import Reply

OFFERS = {
    "h2c, as the JDK sends it": b"connection: Upgrade, HTTP2-Settings\r\nhttp2-settings: AAEAAEAAAAIAAAABAAMAAABk"
    b"AAQBAAAAAAUAAEAA\r\nupgrade: h2c\r\n",
    "websocket": b"connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n",
    "unknown, upper case": b"CONNECTION: UPGRADE\r\nUPGRADE: nonsense/7\r\n",
    "several": b"connection: upgrade\r\nupgrade: h2c\r\nupgrade: websocket, TLS/1.2\r\n",
}
SMUGGLED = b"GET /v1/models HTTP/1.1\r\nhost: x\r\nauthorization: Bearer " + USER.encode() + b"\r\n\r\n"
JAVA = Path(__file__).with_name("JdkClient.java")


@pytest.fixture(params=OFFERS.values(), ids=OFFERS)
def offer(request: pytest.FixtureRequest) -> bytes:
    return bytes(request.param)


def request_with(offer: bytes, body: bytes, *, chunked: bool = False) -> bytes:
    if not chunked:
        return HEAD + offer + b"content-length: %d\r\n\r\n" % len(body) + body
    half = len(body) // 2
    pieces = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in (body[:half], body[half:]) if piece)
    return HEAD + offer + b"transfer-encoding: chunked\r\n\r\n" + pieces + b"0\r\nx-trailer: 1\r\n\r\n"


async def is_silent(peer: Peer) -> bool:
    """No further answer follows. A request after this one would be answered at once."""
    await peer.send(REQUEST)
    return await peer.answer() == (200, {"ok": True}) and not peer.reader._buffer  # type: ignore[attr-defined]


@pytest.mark.parametrize("chunked", [False, True], ids=["content-length", "chunked"])
@pytest.mark.parametrize("body", [SMUGGLED, REQUEST, b'{"a": "' + b"x" * 300_000 + b'"}'], ids=["get", "post", "long"])
async def test_the_body_of_a_request_that_offers_an_upgrade_is_its_body(
    bench: Bench, offer: bytes, body: bytes, chunked: bool
) -> None:
    peer = await bench.connect()
    await peer.send(request_with(offer, body, chunked=chunked))
    assert await peer.answer() == (200, {"ok": True})
    assert await is_silent(peer)
    assert [sent for _, sent in bench.pipeline.calls] == [body, b"{}"]


async def test_a_head_and_a_body_in_pieces_are_put_together(bench: Bench, offer: bytes) -> None:
    data = request_with(offer, SMUGGLED)
    end_of_head = data.index(b"\r\n\r\n") + 4
    for size in (1, 7, end_of_head - 1, end_of_head, end_of_head + 1):
        peer = await bench.connect()
        for at in range(0, len(data), size):
            await peer.send(data[at : at + size])
            await asyncio.sleep(0)
        assert await peer.answer() == (200, {"ok": True})
        assert bench.pipeline.calls.pop()[1] == SMUGGLED


async def test_offers_may_be_pipelined(bench: Bench, offer: bytes) -> None:
    peer = await bench.connect()
    get = b"GET /healthz HTTP/1.1\r\nhost: x\r\n" + offer + b"\r\n"
    await peer.send((request_with(offer, SMUGGLED) + get + request_with(offer, b"{}", chunked=True)) * 3)
    for _ in range(3):
        assert await peer.answer() == (200, {"ok": True})
        assert await peer.answer() == (200, {"status": "ok"})
        assert await peer.answer() == (200, {"ok": True})
    assert await is_silent(peer)
    assert [body for _, body in bench.pipeline.calls] == [SMUGGLED, b"{}"] * 3 + [b"{}"]


async def test_the_body_is_dropped_where_no_route_reads_it(bench: Bench, offer: bytes) -> None:
    peer = await bench.connect()
    head = b"POST /v1/nothing HTTP/1.1\r\nhost: x\r\n" + offer
    await peer.send(head + b"content-length: %d\r\n\r\n" % len(SMUGGLED) + SMUGGLED)
    assert (await peer.answer())[0] == 401
    assert await is_silent(peer)


async def test_a_body_that_does_not_end_is_not_a_request(bench: Bench, offer: bytes) -> None:
    peer = await bench.connect()
    await peer.send(HEAD + offer + b"content-length: 1000\r\n\r\n")
    await peer.send(SMUGGLED)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await peer.reader.read(1)
    assert bench.pipeline.calls == [] or bench.pipeline.calls[0][1] == b""


async def test_an_offer_may_expect_100_continue_and_be_answered_by_a_stream(bench: Bench, offer: bytes) -> None:
    bench.pipeline.answer = Reply(200, ((b"content-type", b"text/event-stream"),), stream=FakeStream([b"data: 1\n\n"]))
    peer = await bench.connect()
    await peer.send(HEAD + offer + b"expect: 100-continue\r\ncontent-length: 2\r\n\r\n")
    assert (await peer.reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100")
    await peer.send(b"{}")
    assert (await peer.reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
    assert await peer.reader.readuntil(b"0\r\n\r\n") == b"9\r\ndata: 1\n\n\r\n0\r\n\r\n"


async def test_an_offer_with_two_lengths_is_refused(bench: Bench, offer: bytes) -> None:
    peer = await bench.connect()
    await peer.send(HEAD + offer + b"content-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n" + SMUGGLED)
    assert await peer.code() == (400, "invalid_http")
    assert await peer.is_closed()


async def test_an_offer_that_closes_the_connection_closes_it(bench: Bench) -> None:
    peer = await bench.connect()
    await peer.send(HEAD + b"connection: close, upgrade\r\nupgrade: h2c\r\ncontent-length: 2\r\n\r\n{}")
    assert await peer.answer() == (200, {"ok": True})
    assert await peer.is_closed()


@pytest.mark.parametrize("after", [b"", SMUGGLED, b"content-length: 2\r\n\r\n{}"])
async def test_connect_is_refused(bench: Bench, after: bytes) -> None:
    peer = await bench.connect()
    await peer.send(b"CONNECT 127.0.0.1:6379 HTTP/1.1\r\nhost: x\r\n\r\n" + after)
    assert await peer.code() == (400, "invalid_http")
    assert await peer.is_closed()
    assert bench.pipeline.calls == []


async def test_http2_with_prior_knowledge_is_refused(bench: Bench) -> None:
    peer = await bench.connect()
    await peer.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00" + SMUGGLED)
    assert await peer.code() == (400, "invalid_http")
    assert await peer.is_closed()


@pytest.mark.skipif(shutil.which("javac") is None, reason="no JDK: the offers above are what its client sends")
async def test_the_jdk_client_posts_with_its_default_settings(bench: Bench) -> None:
    process = await asyncio.create_subprocess_exec(
        *("java", "-Xshare:auto", "-XX:TieredStopAtLevel=1", str(JAVA)),
        *(f"http://127.0.0.1:{bench.port}/v1/chat/completions", USER),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    assert output.decode().split() == ["200", "HTTP_1_1", '{"ok":true}'] * 3
    assert [len(body) for _, body in bench.pipeline.calls] == [2, 200_000, 2]


async def test_an_offer_over_http_1_0_keeps_its_body(bench: Bench) -> None:
    peer = await bench.connect()
    offer = b"connection: upgrade\r\nupgrade: h2c\r\ncontent-length: %d\r\n\r\n" % len(SMUGGLED)
    await peer.send(HEAD.replace(b"HTTP/1.1", b"HTTP/1.0") + offer + SMUGGLED)
    answer = await peer.reader.read()
    assert answer.count(b"HTTP/1.1 ") == 1
    assert [body for _, body in bench.pipeline.calls] == [SMUGGLED]


async def test_a_head_with_an_offer_is_bounded_like_any(bench: Bench, offer: bytes) -> None:
    peer = await bench.connect()
    await peer.send(HEAD + offer + b"x-a: " + b"a" * 70_000 + b"\r\ncontent-length: 2\r\n\r\n{}")
    assert await peer.code() == (431, "request_headers_too_large")
    assert await peer.is_closed()


async def test_many_offers_in_one_piece_are_answered_in_order(bench: Bench, offer: bytes) -> None:
    peer = await bench.connect()
    bodies = [b'{"n":%d}' % n for n in range(MAX_WAITING)]
    await peer.send(b"".join(request_with(offer, body, chunked=n % 3 == 0) for n, body in enumerate(bodies)))
    for _ in bodies:
        assert await peer.answer() == (200, {"ok": True})
    assert [body for _, body in bench.pipeline.calls] == bodies


async def test_any_mix_of_requests_in_any_pieces_is_read_as_without_the_offers(bench: Bench) -> None:
    pick = random.Random(7)
    for _ in range(10):
        bodies = [pick.choice([SMUGGLED, REQUEST, b"{}", b"x" * pick.randrange(1, 5000)]) for _ in range(6)]
        offers = [pick.choice([b"", *OFFERS.values()]) for _ in bodies]
        requests = zip(offers, bodies, strict=True)
        data = b"".join(request_with(offer, body, chunked=pick.random() < 0.5) for offer, body in requests)
        peer = await bench.connect()
        while data:
            size = pick.choice([1, 10, 200, 4000, 100_000])
            await peer.send(data[:size])
            data = data[size:]
            await asyncio.sleep(0)
        for _ in bodies:
            assert await peer.answer() == (200, {"ok": True})
        assert [body for _, body in bench.pipeline.calls] == bodies
        bench.pipeline.calls.clear()
