"""What is captured of a request, through the whole pipeline, and what Redis has of it."""

import asyncio
import hashlib
import json
import threading
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.inference.bench import CONFIG, Bench
from tests.inference.making import CHAT, DONE, SAID, STREAM, a_head, a_principal, answer, as_json, delta, usage
from tests.inference.reading import Pieces
from tests.net.upstream import Peer, Upstream, answering, response, streamed

from quarterdeck import content as contents
from quarterdeck.accounting.commit import CONTENT_SECONDS, Note
from quarterdeck.accounting.redis_keys import content_key, stream_key
from quarterdeck.content import LEVELS, Content, Level, canonical
from quarterdeck.inference import closing
from quarterdeck.inference.call import Operation
from quarterdeck.inference.capture.assembly import FOLD_BYTES, StreamAssembly
from quarterdeck.inference.capture.capture import Capture, level_of
from quarterdeck.net.http_client import HttpClient
from quarterdeck.net.redis import Redis
from quarterdeck.settings.content import ContentConfig

FULL = f"{CONFIG}\ncontent: {{capture: full, max_input_kb: 1, max_output_kb: 1}}"
HELLO = [{"index": 0, "message": {"role": "assistant", "content": "Hello there"}, "finish_reason": "stop"}]


@pytest.fixture
def full(redis: Redis, tmp_path: Path, client: HttpClient) -> Bench:
    return Bench(redis, tmp_path, client, config=FULL)


async def captured(bench: Bench) -> Content | None:
    """What was captured of the only request."""
    record = await bench.record()
    data = await bench.redis.call("GET", content_key("default", record.id))
    assert (record.content == "off") == (data is None)
    return None if data is None else contents.decode(data)


def output(content: Content | None) -> Any:
    assert content is not None
    return msgspec.json.decode(content.output or b"null")


def spooled(folder: Path) -> bytes:
    (path,) = [path for path in folder.iterdir() if path.suffix == ".lines"]
    return path.read_bytes()


# the policy


_levels = st.none() | st.sampled_from(LEVELS)


@given(_levels, _levels, st.sampled_from(LEVELS), st.sampled_from(LEVELS))
def test_the_strictest_of_those_who_say_something_applies(
    own: Level | None, route: Level | None, usual: Level, most: Level
) -> None:
    level = level_of(ContentConfig(capture=usual, most=most), own, route)
    said = [each for each in (own, route) if each is not None]
    assert level == min([*(said or [usual]), most], key=LEVELS.index)


async def test_nothing_is_captured_by_default(bench: Bench) -> None:
    async with Upstream(answering(response(answer()))) as engine:
        bench.add(engine)
        await bench.ask()
        assert await captured(bench) is None


async def test_a_key_can_ask_for_it_where_nobody_else_says_anything(bench: Bench) -> None:
    async with Upstream(answering(response(answer()))) as engine:
        bench.add(engine)
        await bench.ask(head=a_head(principal=a_principal(content="full")))
        found = await captured(bench)
        assert found is not None and found.level == "full"


async def test_a_key_that_is_off_stays_off(full: Bench) -> None:
    async with Upstream(answering(response(answer()))) as engine:
        full.add(engine)
        await full.ask(head=a_head(principal=a_principal(content="off")))
        assert await captured(full) is None


# whole answers


async def test_a_whole_answer_is_captured_with_its_input(full: Bench) -> None:
    async with Upstream(answering(response(answer("Hello there")))) as engine:
        full.add(engine)
        await full.ask({**CHAT, "temperature": 0.5, "tools": [{"type": "function", "function": {"name": "f"}}]})
        found = await captured(full)
    assert found is not None
    assert msgspec.json.decode(found.input or b"") == {
        "messages": CHAT["messages"],
        "tools": [{"type": "function", "function": {"name": "f"}}],
    }
    assert contents.choices_of(output(found)) == HELLO


async def test_embeddings_have_an_input_and_no_output(full: Bench) -> None:
    body = as_json({"object": "list", "data": [], "usage": {"prompt_tokens": 2, "total_tokens": 2}})
    async with Upstream(answering(response(body))) as engine:
        full.add(engine)
        await full.ask(as_json({"model": "m", "input": ["a", "b"]}), operation=Operation.EMBEDDINGS)
        found = await captured(full)
    assert found is not None
    assert (found.input, found.output) == (b'{"input":["a","b"]}', None)


async def test_a_long_input_is_cut_and_its_pictures_are_named(full: Bench) -> None:
    picture = "data:image/png;base64," + "A" * 4000
    parts = [{"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": {"url": picture}}]
    async with Upstream(answering(response(answer()))) as engine:
        full.add(engine)
        await full.ask({"model": "m", "messages": [{"role": "user", "content": parts}]})
        found = await captured(full)
    assert found is not None and found.input is not None
    assert not found.is_input_cut
    assert found.input_bytes > 4000
    (text, image) = msgspec.json.decode(found.input)["messages"][0]["content"]
    digest = hashlib.sha256(b"\x00" * 3000).hexdigest()
    assert text == parts[0]
    assert image["image_url"]["url"] == f"<media: image/png, 3000 bytes, sha256 {digest}>"


@pytest.mark.parametrize("size", [3_000, 300_000])
async def test_a_long_answer_is_cut_in_a_thread_where_it_is_large(full: Bench, size: int) -> None:
    async with Upstream(answering(response(answer("x" * size)))) as engine:
        full.add(engine)
        reply = await full.ask()
        if reply.on_end is not None:
            reply.on_end()
        found = await captured(full)
    assert found is not None and found.is_output_cut
    assert len(found.output or b"") < 2000
    assert found.output_bytes > size


async def test_with_hashed_no_text_leaves_the_gateway(redis: Redis, tmp_path: Path, client: HttpClient) -> None:
    bench = Bench(redis, tmp_path, client, config=FULL.replace("full", "hashed"))
    async with Upstream(answering(streamed(*SAID, usage(), DONE))) as engine:
        bench.add(engine)
        await bench.stream()
        found = await captured(bench)
    assert found is not None
    assert (found.level, found.input, found.output) == ("hashed", None, None)
    assert found.input_hash == hashlib.sha256(b'{"messages":[{"content":"Hi","role":"user"}]}').hexdigest()
    assert found.output_hash == hashlib.sha256(canonical(HELLO)).hexdigest()


# streams


async def test_a_stream_is_assembled_whichever_way_it_arrives(full: Bench) -> None:
    async with Upstream(answering(streamed(*SAID, usage(), DONE))) as engine:
        full.add(engine)
        await full.stream()
        found = await captured(full)
    assert output(found) == HELLO


async def test_a_cancelled_stream_holds_what_the_client_got(full: Bench) -> None:
    async with Upstream(answering(streamed(delta("Hello "), delta("there")))) as engine:
        full.add(engine)
        reply = await full.ask(STREAM)
        assert reply.stream is not None
        got = b""
        async with Pieces(reply.stream) as pieces:
            async for piece in pieces:
                got += piece
                if b"there" in got:
                    break
        (choice,) = output(await captured(full))
    assert choice == {"index": 0, "message": {"role": "assistant", "content": "Hello there"}, "finish_reason": None}


async def test_an_answer_from_the_cache_is_captured_as_the_first_one(
    redis: Redis, tmp_path: Path, client: HttpClient
) -> None:
    bench = Bench(redis, tmp_path, client, config=f"{FULL}\ncache: {{default: {{exact: true}}}}")
    async with Upstream(answering(streamed(*SAID, usage(), DONE))) as engine:
        bench.add(engine)
        for _ in range(2):
            await bench.stream({"temperature": 0})
            await bench.drain()
        records = await bench.records()
        assert [record.cache for record in records] == ["miss", "hit"]
        found = [await redis.call("GET", content_key("default", record.id)) for record in records]
    assert [output(contents.decode(data)) for data in found] == [HELLO, HELLO]


async def test_a_request_that_fails_has_its_input(full: Bench) -> None:
    async with Upstream(answering(response(b'{"error": {"message": "no", "code": 400}}', status=400))) as engine:
        full.add(engine)
        with pytest.raises(Exception, match="no"):
            await full.ask()
        found = await captured(full)
    assert found is not None
    assert (json.loads(found.input or b""), found.output) == ({"messages": CHAT["messages"]}, None)


async def test_a_thousand_open_streams_hold_a_bounded_memory() -> None:
    """Each holds its cap and one fold, whatever was streamed."""
    streams = [StreamAssembly(1024) for _ in range(1000)]
    burst = b"".join(delta("word ") for _ in range(500))
    for each in streams:
        for _ in range(3):
            each.add(burst)
    held = sum(each._size + each._taken for each in streams)
    assert held <= 1000 * (FOLD_BYTES + 1024)


# Redis is away, or full of records


async def test_content_waits_in_the_spool_while_redis_is_away(tmp_path: Path, client: HttpClient) -> None:
    away = Redis("redis://127.0.0.1:1/0")
    bench = Bench(away, tmp_path, client, config=FULL)
    async with Upstream(answering(response(answer("Hello there")))) as engine:
        bench.add(engine)
        await bench.ask()
        await bench.drain()
    await away.close()
    note = msgspec.json.decode(spooled(tmp_path), type=Note)
    assert note.record.content == "full"
    assert note.content is not None
    assert contents.choices_of(output(contents.decode(note.content))) == HELLO


async def test_contents_are_dropped_before_records_when_the_worker_is_away(full: Bench) -> None:
    full.settlement.max_waiting_contents = 3
    async with Upstream(answering(*[response(answer())] * 5)) as engine:
        full.add(engine)
        for _ in range(5):
            await full.ask()
            await full.drain()
    records = await full.records()
    waiting = [await full.redis.call("EXISTS", content_key("default", record.id)) for record in records]
    assert waiting == [1, 1, 1, 0, 0]
    assert await full.redis.call("XLEN", stream_key("default")) == 5


async def test_contents_of_one_batch_stay_with_their_records(full: Bench) -> None:
    """Requests of one principal that end in one turn are settled by one command."""

    async def echo(peer: Peer) -> None:
        while True:
            seen = await peer.request()
            await peer.say(response(answer(json.loads(seen.body)["messages"][0]["content"])))

    who = a_principal()
    async with Upstream(echo) as engine:
        full.add(engine)
        asked = [{**CHAT, "messages": [{"role": "user", "content": str(number)}]} for number in range(60)]
        await asyncio.gather(*[full.ask(each, head=a_head(principal=who)) for each in asked])
        records = await full.records()
    said = []
    for record in records:
        key = content_key("default", record.id)
        found = contents.decode(await full.redis.call("GET", key))
        assert 0 < await full.redis.call("TTL", key) <= CONTENT_SECONDS
        (choice,) = contents.choices_of(output(found))
        said.append(choice["message"]["content"])
        assert msgspec.json.decode(found.input or b"")["messages"][0]["content"] == said[-1]
    assert sorted(said, key=int) == [str(number) for number in range(60)]


async def test_too_many_large_contents_at_a_time_are_dropped_and_their_records_are_not(
    full: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(closing, "MAX_LARGE", 2)
    started = threading.Event()
    encoded = closing._encoded

    def held(capture: Capture) -> bytes | None:
        started.wait(20)
        return encoded(capture)

    monkeypatch.setattr(closing, "_encoded", held)
    large = {**CHAT, "messages": [{"role": "user", "content": "x" * 100_000}]}
    async with Upstream(answering(*[response(answer())] * 5)) as engine:
        full.add(engine)
        for _ in range(5):
            await full.ask(large)
        started.set()
        records = await full.records()
    assert sorted(record.content for record in records) == ["full", "full", "off", "off", "off"]


async def test_a_bug_in_the_capture_loses_no_record(full: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Capture) -> bytes:
        raise RuntimeError("a bug")

    monkeypatch.setattr(Capture, "encoded", broken)
    async with Upstream(answering(response(answer()))) as engine:
        full.add(engine)
        await full.ask()
        assert await captured(full) is None
