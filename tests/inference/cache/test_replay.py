"""A cached answer is returned as it was."""

from decimal import Decimal

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from tests.inference.cache.samples import SSE, STREAM, a_finished, kept, stream_entry
from tests.inference.making import DONE, answer, delta, usage
from tests.inference.reading import read, read_pieces

from quarterdeck.inference.cache.entry import decode, encode, make_entry
from quarterdeck.inference.cache.replay import PIECE_BYTES, Replay, hit_record, make_reply
from quarterdeck.inference.call import Reply


async def sent(reply: Reply) -> bytes:
    assert reply.stream is not None
    return await read(reply.stream)


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=3000), min_size=1, max_size=40))
async def test_a_stream_is_replayed_byte_for_byte_in_whole_events(texts: list[str]) -> None:
    body = b"".join(delta(text) for text in texts) + delta(finish="stop") + usage() + DONE
    entry = kept(decode(encode(kept(stream_entry(body)))))
    reply = make_reply(entry, entry.made + 1, shows_usage=True)
    assert reply.stream is not None
    pieces = await read_pieces(reply.stream)
    assert b"".join(pieces) == body
    assert all(piece.endswith(b"\n\n") for piece in pieces)
    assert max(len(piece) for piece in pieces) <= PIECE_BYTES + max(map(len, body.split(b"\n\n"))) + 2


async def test_usage_is_shown_to_those_who_asked() -> None:
    entry = kept(stream_entry())
    assert await sent(make_reply(entry, 0, shows_usage=True)) == STREAM
    assert await sent(make_reply(entry, 0, shows_usage=False)) == STREAM.replace(usage(), b"")


async def test_what_a_proxy_says_after_done_does_not_matter() -> None:
    entry = kept(stream_entry(STREAM + b": bye\n\n"))
    assert await sent(make_reply(entry, 0, shows_usage=False)) == STREAM.replace(usage(), b"") + b": bye\n\n"


async def test_usage_in_a_chunk_with_text_is_shown_to_all() -> None:
    body = delta("x", usage={"prompt_tokens": 1}) + usage(output=1) + delta(finish="stop") + usage() + DONE
    entry = kept(stream_entry(body))
    expected = body.replace(usage(), b"").replace(usage(output=1), b"")
    assert await sent(make_reply(entry, 0, shows_usage=False)) == expected


def test_a_body_is_replayed_whole_with_its_age() -> None:
    body = answer()
    record = a_finished(stream=False, ended=1000.0)
    entry = kept(make_entry(record, body, b"application/json"))
    reply = make_reply(entry, 1061.7, shows_usage=False, headers=((b"x-ratelimit-limit-requests", b"5"),))
    assert (reply.status, reply.body, reply.stream) == (200, body, None)
    assert dict(reply.headers) == {
        b"content-type": b"application/json",
        b"x-cache": b"hit",
        b"age": b"61",
        b"x-ratelimit-limit-requests": b"5",
    }


async def test_a_replay_that_is_closed_is_over() -> None:
    subject = Replay(STREAM)
    await subject.aclose()
    assert await read_pieces(subject) == []


def test_a_hit_costs_nothing_and_says_what_it_saved() -> None:
    entry = kept(stream_entry(ended=1000.0))
    asked = a_finished(input_tokens=0, output_tokens=0, cost=Decimal(0), response_id=None, finish_reason=None)
    record = hit_record(asked, entry, 1002.5)
    assert (record.cache, record.cache_age, record.cost, record.saved) == ("hit", 2.5, Decimal(0), entry.cost)
    assert (record.finish_reason, record.response_id) == ("stop", "chatcmpl-1")
    assert make_entry(record, STREAM, SSE) is None
    assert msgspec.json.decode(msgspec.json.encode(record), type=type(record)) == record
