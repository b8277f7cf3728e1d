"""Audio and images on their way through the pipeline: other endpoints, what is held and paid, how they end."""

import asyncio
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from tests.accounting.spending import a_scope, spent_and_held, trust
from tests.inference.bench import Bench
from tests.inference.making import a_head, a_principal, as_json
from tests.inference.reading import Pieces, read
from tests.net.upstream import Peer, Upstream, answering, chunk, response, stream_head, until

from quarterdeck.accounting.principal import Principal
from quarterdeck.errors import (
    APIError,
    BadRequestError,
    EngineError,
    EngineUnavailableError,
    InsufficientQuotaError,
    NotServedError,
)
from quarterdeck.inference.call import Head, Operation, Reply
from quarterdeck.inference.media_calls.request import FormBody, JsonBody, MediaRequest
from quarterdeck.net.http_client import HttpClient
from quarterdeck.net.redis import Redis
from quarterdeck.protocol import sse
from quarterdeck.protocol.forms import FormPart
from quarterdeck.protocol.media_requests import image_facts, picture_facts, speech_facts, transcription_facts
from quarterdeck.protocol.trace_context import TraceContext

KEY = "key:key_1"
CONFIG = """
models:
  - name: m
    endpoints: [{url: "http://unused"}]
    serves: [audio.transcriptions, audio.speech, images.generations, images.edits]
    price: {audio_second: "0.001", thousand_characters: "0.1", image: "0.05"}
"""
BY_TOKEN = CONFIG[: CONFIG.index("    price:")] + "    price: {input: 1, output: 10}\n"
DOWN = response(b'{"error":{"message":"down"}}', status=503)
SPEECH = {"model": "m", "voice": "a", "input": "Hello"}


@pytest.fixture
async def bench(redis: Redis, tmp_path: Path, client: HttpClient) -> AsyncIterator[Bench]:
    yield Bench(redis, tmp_path, client, config=CONFIG)


def rich(amount: int = 10**7) -> Principal:
    return a_principal(scopes=(a_scope(KEY, amount),))


def speech(**asked: Any) -> MediaRequest:
    facts, members = speech_facts(as_json(SPEECH | asked))
    return MediaRequest(Operation.AUDIO_SPEECH, facts, JsonBody(members))


def images(**asked: Any) -> MediaRequest:
    facts, members = image_facts(as_json({"model": "m", "prompt": "a ship"} | asked))
    return MediaRequest(Operation.IMAGES_GENERATIONS, facts, JsonBody(members))


def transcription(audio: bytes = b"x" * 4000, **fields: str) -> MediaRequest:
    parts = [FormPart(name, value.encode()) for name, value in {"model": "m", **fields}.items()]
    parts.append(FormPart("file", audio, "a.mp3", "audio/mpeg"))
    facts = transcription_facts(parts)
    return MediaRequest(Operation.AUDIO_TRANSCRIPTIONS, facts, FormBody(parts, is_transcript_stream=facts.is_streaming))


async def ask(bench: Bench, wanted: MediaRequest, principal: Principal | None = None) -> Reply:
    head: Head = a_head(wanted.operation, **({} if principal is None else {"principal": principal}))
    return await bench.media.call(head, wanted)


def audio_of(*pieces: bytes) -> bytes:
    head = b"HTTP/1.1 200 OK\r\ncontent-type: audio/mpeg\r\ntransfer-encoding: chunked\r\n\r\n"
    return head + b"".join(map(chunk, pieces)) + chunk(b"")


async def test_another_endpoint_gets_the_whole_form_where_the_first_is_down(bench: Bench) -> None:
    answer = response(as_json({"text": "hi", "usage": {"type": "duration", "seconds": 3}}))
    async with Upstream(answering(DOWN)) as first, Upstream(answering(answer)) as second:
        bench.add(first)
        bench.add(second, upstream_model="org/whisper")
        reply = await ask(bench, transcription(b"\0\r\n--x" * 1000, language="en"))
        assert reply.body == as_json({"text": "hi", "usage": {"type": "duration", "seconds": 3}})
        sent = second.requests[0]
    kind = sent.header("content-type")
    assert kind is not None and kind.startswith("multipart/form-data; boundary=")
    assert b"\0\r\n--x" * 1000 in sent.body and b"org/whisper" in sent.body and b"\r\n\r\nen\r\n" in sent.body
    record = await bench.record()
    assert [each.status for each in record.attempts] == [503, 200]
    assert (record.audio_ms, record.cost, record.usage_source) == (3000, Decimal("0.003"), "engine")


async def test_pieces_arrive_as_the_engine_sends_them(bench: Bench) -> None:
    go_on = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        head = b"HTTP/1.1 200 OK\r\ncontent-type: audio/mpeg\r\ntransfer-encoding: chunked\r\n\r\n"
        await peer.say(head + chunk(b"one"))
        await go_on.wait()
        await peer.say(chunk(b"two") + chunk(b""))

    async with Upstream(script) as upstream:
        bench.add(upstream)
        reply = await ask(bench, speech())
        assert reply.stream is not None and (b"content-type", b"audio/mpeg") in reply.headers
        async with Pieces(reply.stream) as pieces:
            assert await anext(pieces) == b"one"
            go_on.set()
            assert [piece async for piece in pieces] == [b"two"]
    record = await bench.record()
    assert (record.status, record.characters, record.cost) == ("ok", 5, Decimal("0.0005"))
    assert record.stream and record.first_token is not None


async def test_a_gateway_that_dies_leaves_a_note_of_what_has_begun(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes = []
    monkeypatch.setattr(bench.settlement, "begin", lambda org, id, note: notes.append(note))

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.say(b"HTTP/1.1 200 OK\r\ncontent-type: audio/mpeg\r\ncontent-length: 9\r\n\r\none")
        await peer.until_gone()

    async with Upstream(script) as upstream:
        bench.add(upstream)
        asking = asyncio.ensure_future(ask(bench, speech()))
        await upstream.arrived.wait()
        (note,) = notes
        reply = await asking
        record = note().record
        assert (record.status, record.characters, record.cost) == ("lost", 5, Decimal("0.0005"))
        assert reply.stream is not None
        await reply.stream.aclose()


async def test_an_engine_waits_for_a_client_that_does_not_read(bench: Bench) -> None:
    blocked = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        head = b"HTTP/1.1 200 OK\r\ncontent-type: audio/mpeg\r\ncontent-length: %d\r\n\r\n" % (64 << 20)
        said = asyncio.ensure_future(peer.say(head, *[b"x" * (1 << 20)] * 64))
        await until(lambda: peer.is_blocked or said.done())
        assert not said.done()
        blocked.set()
        await said

    async with Upstream(script) as upstream:
        bench.add(upstream)
        reply = await ask(bench, speech())
        assert reply.stream is not None
        async with Pieces(reply.stream) as pieces:
            size = len(await anext(pieces))
            await blocked.wait()
            async for piece in pieces:
                size += len(piece)
        assert size == 64 << 20
    assert (await bench.record()).status == "ok"


@pytest.mark.parametrize("events", [False, True])
async def test_what_breaks_off_is_an_error_and_is_billed_as_asked_for(bench: Bench, events: bool) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        begun = sse.event({"type": "speech.audio.delta", "audio": "eA=="}) if events else b"some"
        head = (
            stream_head()
            if events
            else b"HTTP/1.1 200 OK\r\ncontent-type: audio/wav\r\ntransfer-encoding: chunked\r\n\r\n"
        )
        await peer.say(head + chunk(begun))
        await peer.request()

    async with Upstream(script) as upstream:
        bench.add(upstream)
        reply = await ask(bench, speech(**({"stream_format": "sse"} if events else {})))
        assert reply.stream is not None
        async with Pieces(reply.stream) as pieces:
            assert await anext(pieces)
            await upstream.stop()
            with pytest.raises(EngineError):
                await anext(pieces)
    record = await bench.record()
    assert (record.status, record.error_code, record.characters) == ("error", "engine_error", 5)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (response(b"{oops"), EngineError),
        (response(b'{"error":{"message":"boom"}}'), EngineError),
        (audio_of(), EngineUnavailableError),
        (stream_head() + chunk(b'data: {"type":"error","error":{"message":"boom"}}\n\n') + chunk(b""), EngineError),
        (response(b'{"error":{"message":"bad voice","param":"voice"}}', status=400), BadRequestError),
        (response(b"<html>no</html>", status=404), APIError),
    ],
)
async def test_what_is_no_answer_is_an_error_that_costs_nothing(
    bench: Bench, answer: bytes, error: type[APIError]
) -> None:
    principal = rich()
    await trust(bench.redis, *principal.scopes)
    async with Upstream(answering(answer)) as upstream:
        bench.add(upstream)
        with pytest.raises(error):
            await ask(bench, speech(), principal)
    record = await bench.record()
    assert (record.status, record.characters, record.cost) == ("error", 0, 0)
    assert await spent_and_held(bench.redis, KEY) == [(0, 0)]


async def test_an_error_in_mid_stream_is_raised_and_what_came_before_is_sent(bench: Bench) -> None:
    first, go_on = sse.event({"type": "speech.audio.delta", "audio": "eA=="}), asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.say(stream_head() + chunk(first))
        await go_on.wait()
        await peer.say(chunk(sse.event({"error": {"message": "boom"}})) + chunk(b""))

    async with Upstream(script) as upstream:
        bench.add(upstream)
        reply = await ask(bench, speech(stream_format="sse"))
        assert reply.stream is not None
        async with Pieces(reply.stream) as pieces:
            assert await anext(pieces) == first
            go_on.set()
            with pytest.raises(EngineError, match="boom"):
                await anext(pieces)
    assert (await bench.record()).status == "error"


async def test_vllm_is_asked_for_the_tokens_of_a_stream_and_others_are_not(bench: Bench) -> None:
    done = response(b"data: [DONE]\n\n", content_type="text/event-stream")
    async with Upstream(answering(done, done)) as upstream:
        bench.add(upstream)
        for kind in ("vllm", "openai"):
            (endpoint,) = bench.listed.endpoints
            endpoint.spec = type(endpoint.spec)(endpoint.id, "m", upstream.url, kind=kind)
            reply = await ask(bench, transcription(stream="true"))
            assert reply.stream is not None
            await read(reply.stream)
            await reply.stream.aclose()
        bodies = [each.body for each in upstream.requests]
    assert b"stream_include_usage" in bodies[0] and b"stream_include_usage" not in bodies[1]


async def test_a_server_that_is_not_vllm_is_sent_no_names_of_other_models(bench: Bench) -> None:
    async with Upstream(answering(audio_of(b"x"))) as upstream:
        bench.add(upstream, kind="openai", omits=frozenset({"speed"}))
        reply = await ask(bench, speech(MODEL="big", models=["big"], cache={}, speed=2, voice="b"))
        assert reply.stream is not None
        await read(reply.stream)
        await reply.stream.aclose()
        assert upstream.requests[0].json == {"model": "m", "voice": "b", "input": "Hello"}


async def test_a_budget_holds_the_most_and_pays_what_came(bench: Bench) -> None:
    principal = rich(200_000)
    await trust(bench.redis, *principal.scopes)
    go_on = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await go_on.wait()
        await peer.say(response(as_json({"created": 1, "data": [{"b64_json": "eA=="}]})))

    async with Upstream(script) as upstream:
        bench.add(upstream)
        with pytest.raises(InsufficientQuotaError):
            await ask(bench, images(n=5), principal)
        asking = asyncio.ensure_future(ask(bench, images(n=3), principal))
        await upstream.arrived.wait()
        assert await spent_and_held(bench.redis, KEY) == [(0, 150_000)]
        go_on.set()
        await asking
    await bench.drain()
    assert await spent_and_held(bench.redis, KEY) == [(50_000, 0)]
    assert (await bench.record()).images == 1


async def test_a_client_that_leaves_gives_back_what_is_held_and_stops_the_engine(bench: Bench) -> None:
    principal = rich()
    await trust(bench.redis, *principal.scopes)

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.until_gone()

    async with Upstream(script) as upstream:
        bench.add(upstream)
        asking = asyncio.ensure_future(ask(bench, images(n=3), principal))
        await upstream.arrived.wait()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await upstream.closed.wait()
    record = await bench.record()
    assert (record.status, record.images, record.cost) == ("cancelled", 0, 0)
    assert await spent_and_held(bench.redis, KEY) == [(0, 0)]


async def test_a_large_answer_holds_its_keys_place_until_the_client_has_it(bench: Bench) -> None:
    body = as_json({"created": 1, "data": [{"b64_json": "x" * 200_000}]})
    async with Upstream(answering(response(body))) as upstream:
        bench.add(upstream)
        reply = await ask(bench, images())
        assert reply.body == body and reply.on_end is not None
        assert await bench.reservations() == 1
        reply.on_end()
    assert (await bench.record()).images == 1


async def test_a_picture_without_a_model_that_edits_it_is_a_501(bench: Bench) -> None:
    parts = [FormPart("model", b"m"), FormPart("image", b"x", "a.png")]
    wanted = MediaRequest(Operation.IMAGES_VARIATIONS, picture_facts(parts), FormBody(parts))
    with pytest.raises(NotServedError):
        await ask(bench, wanted)
    assert bench.seen == []


@pytest.fixture
async def by_token(redis: Redis, tmp_path: Path, client: HttpClient) -> AsyncIterator[Bench]:
    yield Bench(redis, tmp_path, client, config=BY_TOKEN)


async def test_a_client_that_leaves_before_the_usage_does_not_pay_nothing(by_token: Bench) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.say(stream_head() + chunk(sse.event({"type": "transcript.text.delta", "delta": "all of it"})))
        await peer.until_gone()

    async with Upstream(script) as upstream:
        by_token.add(upstream)
        reply = await ask(by_token, transcription(b"x" * 40_000, stream="true"))
        assert reply.stream is not None
        async with Pieces(reply.stream) as pieces:
            assert b"all of it" in await anext(pieces)
    record = await by_token.record()
    assert (record.status, record.usage_source) == ("cancelled", "estimated")
    assert (record.input_tokens, record.output_tokens) == (250, 40) and record.cost > 0


async def test_a_form_without_usage_does_not_cost_nothing(by_token: Bench) -> None:
    text = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 2\r\n\r\nhi"
    async with Upstream(answering(text)) as upstream:
        by_token.add(upstream)
        await ask(by_token, transcription(b"x" * 40_000, response_format="text"))
    record = await by_token.record()
    assert (record.usage_source, record.input_tokens, record.output_tokens) == ("estimated", 250, 40)
    assert record.cost > 0


async def test_a_length_that_is_estimated_stays_so_where_the_engine_counts_tokens_only(bench: Bench) -> None:
    usage = {"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11}
    events = sse.event({"object": "transcription.chunk", "choices": [{"delta": {"content": "hi"}}], "usage": usage})
    answer = response(events + b"data: [DONE]\n\n", content_type="text/event-stream")
    async with Upstream(answering(answer)) as upstream:
        bench.add(upstream)
        reply = await ask(bench, transcription(stream="true"))
        assert reply.stream is not None
        await read(reply.stream)
        await reply.stream.aclose()
    record = await bench.record()
    assert (record.status, record.input_tokens, record.audio_ms) == ("ok", 9, 1000)
    assert record.usage_source == "estimated"


async def test_the_seconds_of_a_streams_last_event_count(bench: Bench) -> None:
    done = {"type": "transcript.text.done", "text": "hi", "usage": {"type": "duration", "seconds": 7}}
    async with Upstream(answering(response(sse.event(done), content_type="text/event-stream"))) as upstream:
        bench.add(upstream)
        reply = await ask(bench, transcription(stream="true"))
        assert reply.stream is not None
        await read(reply.stream)
        await reply.stream.aclose()
    record = await bench.record()
    assert (record.audio_ms, record.usage_source) == (7000, "engine")


async def test_speech_without_events_does_not_cost_nothing(by_token: Bench) -> None:
    async with Upstream(answering(audio_of(b"x"))) as upstream:
        by_token.add(upstream)
        reply = await ask(by_token, speech())
        assert reply.stream is not None
        await read(reply.stream)
        await reply.stream.aclose()
    record = await by_token.record()
    assert (record.status, record.usage_source) == ("ok", "estimated")
    assert (record.input_tokens, record.output_tokens, record.cost > 0) == (2, 10, True)


@pytest.mark.parametrize(("kind", "is_traced"), [("vllm", True), ("openai", False)])
async def test_only_vllm_is_shown_the_callers_trace(bench: Bench, kind: str, *, is_traced: bool) -> None:
    trace = TraceContext("ab" * 16, "cd" * 8, state="vendor=secret")
    async with Upstream(answering(audio_of(b"x"))) as upstream:
        bench.add(upstream, kind=kind)
        reply = await bench.media.call(a_head(Operation.AUDIO_SPEECH, trace=trace), speech())
        assert reply.stream is not None
        await read(reply.stream)
        await reply.stream.aclose()
        sent = upstream.requests[0]
    assert (sent.header("traceparent") is not None) is is_traced
    assert (sent.header("tracestate") is not None) is is_traced
