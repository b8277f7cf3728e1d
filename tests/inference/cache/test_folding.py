"""What is folded comes back byte for byte, whatever it is; and the streams of engines are folded well."""

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.inference.making import DONE, delta, event, usage

from quarterdeck.inference.cache import folding
from quarterdeck.inference.cache.folding import LEAST_JOINT_BYTES, MAX_BYTES, NUL, fold, unfold

WORDS = (" the", " quick", '"', "\n", "\\", '\\"', " fox", '"}', "é", "\x00", '"},"logprobs":null', '"content":"', "")


def vllm(texts: tuple[str, ...], **more: Any) -> bytes:
    """A chat's stream: the role's chunk, a chunk a token, the last one, usage, the end."""
    role = {"index": 0, "delta": {"role": "assistant", "content": ""}, "logprobs": None, "finish_reason": None}
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "model": "m", "choices": [role]}
    spoken = b"".join(delta(text, **more) for text in texts)
    return event(head | {"prompt_token_ids": None}) + spoken + delta(finish="stop") + usage() + DONE


def mock(chunks: int) -> bytes:
    """As the engine of the benchmarks answers: the same token again and again."""
    begin = b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1700000000,"model":"mock","choices":['
    token = begin + b'{"index":0,"delta":{"content":" fox"},"finish_reason":null}]}\n\n'
    counts = b'],"usage":{"prompt_tokens":24,"completion_tokens":64,"total_tokens":88}}\n\n'
    last = begin + b'{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
    return token * chunks + last + begin + counts + DONE


def choices(count: int) -> bytes:
    return b"".join(
        event({"id": "chatcmpl-1", "choices": [{"index": at % count, "delta": {"content": f" {at}"}}], "model": "m"})
        for at in range(32)
    )


def arguments(pieces: tuple[str, ...]) -> bytes:
    calls = [{"index": 0, "function": {"arguments": piece}} for piece in pieces]
    chunks = [{"id": "chatcmpl-1", "choices": [{"index": 0, "delta": {"tool_calls": [call]}}]} for call in calls]
    return b"".join(map(event, chunks)) + DONE


def spaced(body: bytes) -> bytes:
    """As Python's default writes JSON."""
    return re.sub(rb"\{.*\}", lambda found: json.dumps(json.loads(found[0])).encode(), body)


COMPLETION = {"id": "cmpl-1", "object": "text_completion", "model": "m"}
SHAPES = {
    "vllm": vllm(WORDS * 5),
    "spaced": spaced(vllm(WORDS * 5)),
    "mock": mock(64),
    "completions": b"".join(event(COMPLETION | {"choices": [{"index": 0, "text": word}]}) for word in WORDS * 5),
    "reasoning": vllm(WORDS * 5).replace(b'"content"', b'"reasoning_content"'),
    "tool calls": arguments(('{"', "city", '": "', "Rome", '"}') * 10),
    "crlf": vllm(WORDS * 5).replace(b"\n", b"\r\n"),
}
ODD = {
    "two choices": choices(2),
    "a count in each": b"".join(delta(f" {at}", usage={"completion_tokens": at}) for at in range(64)),
    "no text": delta(finish="stop") * 64,
    "a raw NUL": mock(32) + NUL + mock(32),
    "short": vllm((" Hi",)),
    "nothing": b"",
    "no stream": b"x" * 20_000,
    "text without end": b'"content":"' + b"x" * 20_000,
    "nothing but escapes": b'"content":"' + rb"\"" * 100_000,
}


@pytest.mark.parametrize("body", SHAPES.values(), ids=SHAPES)
def test_a_stream_is_folded_to_a_fraction(body: bytes) -> None:
    folded, joint = fold(body)
    assert unfold(folded, joint, len(body)) == body
    assert 4 * (len(folded) + len(joint)) < len(body)


@pytest.mark.parametrize("body", ODD.values(), ids=ODD)
def test_where_nothing_is_won_it_stays_as_it_is(body: bytes) -> None:
    assert fold(body) == (body, b"")


def test_what_only_looks_like_a_joint_costs_room_and_no_more() -> None:
    """Two models of one length in one stream: ends and lengths are the same, and what stands between is not."""
    body = vllm(WORDS * 5)
    other = body.replace(b'"model":"m"', b'"model":"n"')
    assert fold(body + other) == (body + other, b"")


def test_each_folding_is_tried_before_it_is_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folding, "HEAD_BYTES", 0)
    monkeypatch.setattr(folding, "TAIL_BYTES", 0)
    for body in SHAPES.values():
        folded, joint = fold(body)
        assert joint == b"" or unfold(folded, joint, len(body)) == body


def texts() -> st.SearchStrategy[tuple[str, ...]]:
    anything = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
    return st.lists(st.sampled_from(WORDS) | anything, max_size=40).map(tuple)


def lookalikes() -> st.SearchStrategy[bytes]:
    """Streams cut up and put together again, with parts of their joints and NULs in between."""
    parts = [fold(SHAPES["vllm"])[1], NUL, b"\r\n", b'"content":"', b'"}', *ODD.values()]
    whole = st.sampled_from((*SHAPES.values(), *parts))
    pieces = st.tuples(whole, st.integers(0, 500), st.integers(0, 8000)).map(lambda cut: cut[0][cut[1] : cut[2]])
    return st.lists(pieces | st.binary(max_size=50), max_size=12).map(b"".join)


def streams() -> st.SearchStrategy[bytes]:
    made = st.tuples(
        texts().map(vllm) | texts().map(arguments), st.sampled_from((b"\n", b"\r\n")), st.binary(max_size=4)
    )
    return made.map(lambda parts: parts[0].replace(b"\n", parts[1]) + parts[2])


@given(st.binary(max_size=500) | streams() | lookalikes())
def test_whatever_is_folded_comes_back_byte_for_byte(body: bytes) -> None:
    folded, joint = fold(body)
    if joint:
        assert unfold(folded, joint, len(body)) == body
        assert len(folded) + len(joint) < len(body) and len(joint) >= LEAST_JOINT_BYTES
    else:
        assert folded == body


@given(st.binary(max_size=100), st.binary(min_size=1, max_size=100), st.integers(-1, 2**63))
def test_what_has_another_size_is_not_unfolded(folded: bytes, joint: bytes, size: int) -> None:
    whole = folded.replace(NUL, joint)
    assert unfold(folded, joint, len(whole)) == whole
    assert unfold(folded, joint, size) == (whole if size == len(whole) else None)


def test_nothing_unfolds_to_more_than_is_folded() -> None:
    token = delta(" fox")
    body = token * (MAX_BYTES // len(token))
    assert fold(body)[1] and not fold(body + token)[1]
    assert unfold(NUL * 10**5, b"x" * 10**5, 10**10) is None  # its size is true
