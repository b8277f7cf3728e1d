"""Answers of other servers: whatever they hold, what comes out is OpenAI's or an error."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quarterdeck.protocol import sse
from quarterdeck.protocol.foreign.answers import mend_answer
from quarterdeck.protocol.foreign.conversion import as_events
from quarterdeck.protocol.foreign.expected import (
    CHAT_PATH,
    COMPLETIONS_PATH,
    EMBEDDINGS_PATH,
    Expected,
    NotAnAnswerError,
)
from quarterdeck.protocol.foreign.streams import ForeignSplitter


def chunk(text: str, index: Any = 0, finish: str | None = None, **more: Any) -> dict[str, Any]:
    return {"id": "x", "choices": [{"index": index, "delta": {"content": text}, "finish_reason": finish}], **more}


def counts(output: int) -> dict[str, int]:
    return {"prompt_tokens": 1, "completion_tokens": output, "total_tokens": 1 + output}


def run(*chunks: Any, choices: int = 1, path: str = CHAT_PATH, end: bytes = sse.DONE) -> list[dict[str, Any] | None]:
    splitter = ForeignSplitter(Expected(path, choices))
    said = splitter.feed(b"".join(map(sse.event, chunks)) + end) + splitter.finish()
    return [sse.parse(event) for event in sse.events(said)]


def texts(chunks: list[dict[str, Any] | None]) -> dict[int, str]:
    found: dict[int, str] = {}
    for each in filter(None, chunks):
        for choice in each["choices"]:
            found[choice["index"]] = found.get(choice["index"], "") + choice["delta"].get("content", "")
    return found


@pytest.mark.parametrize(("first", "second"), [(0, 1), (1, 2), (1, 0), (7, 9)])
def test_choices_are_counted_from_zero_in_the_order_in_which_they_come(first: int, second: int) -> None:
    chunks = [chunk("a", first), chunk("b", second), chunk("A", first, "stop"), chunk("B", second, "stop")]
    found = run(*chunks, choices=2)
    assert texts(found) == {0: "aA", 1: "bB"}
    assert found[-1] is None


def test_choices_that_were_not_asked_for_are_left_out() -> None:
    assert texts(run(chunk("a", 0), chunk("b", 1), chunk("c", 2), choices=2)) == {0: "a", 1: "b"}


def test_at_the_end_of_the_body_each_choice_must_have_finished() -> None:
    chunks = [chunk("a", 0, "stop"), chunk("b", 1)]
    assert all(run(*chunks, choices=2, end=b"")), "no [DONE]"
    assert all(run(chunks[0], choices=2, end=b"")), "a choice is missing"
    assert run(chunks[0], chunk("b", 1, "stop"), choices=2, end=b"")[-1] is None


def test_nothing_follows_the_end_or_an_error() -> None:
    assert texts(run(chunk("a"), end=sse.DONE + sse.event(chunk("b")) + sse.DONE)) == {0: "a"}
    found = run(chunk("a"), {"error": {"message": "x"}}, chunk("b"))
    assert found[-1] == {"error": {"message": "x"}}


def test_the_last_usage_counts_and_comes_last() -> None:
    found = run(chunk("a", usage=counts(1)), chunk("b", usage=counts(2)))
    assert found[-2] is not None
    assert (found[-2]["choices"], found[-2]["usage"]) == ([], counts(2))
    assert all("usage" not in each for each in found[:-2] if each)


@pytest.mark.parametrize("indices", [[0, 1], [1, 2], [1, 0], [None, None], [5, 5], ["a", {}]])
def test_whole_choices_have_indices_from_zero(indices: list[Any]) -> None:
    choices = [{"index": index, "message": {"content": "x"}, "finish_reason": "stop"} for index in indices]
    mended = json.loads(mend_answer(json.dumps({"choices": choices}).encode(), Expected(CHAT_PATH, 0)))
    assert sorted(choice["index"] for choice in mended["choices"]) == [0, 1]


@pytest.mark.parametrize("indices", [[0, 1], [1, 2], [None, None]])
def test_embeddings_have_indices_from_zero(indices: list[int | None]) -> None:
    rows = [
        {"embedding": [float(at)]} | ({} if index is None else {"index": index}) for at, index in enumerate(indices)
    ]
    mended = json.loads(mend_answer(json.dumps({"data": rows}).encode(), Expected(EMBEDDINGS_PATH, 0)))
    assert [row["index"] for row in mended["data"]] == [0, 1]
    assert mended["object"] == "list"


@pytest.mark.parametrize("body", [b'{"choices":[]}', b'{"choices":[1]}', b'{"id":"x"}', b'{"choices":null}', b"{}"])
def test_json_that_is_no_answer_is_an_error(body: bytes) -> None:
    for path in (CHAT_PATH, COMPLETIONS_PATH, EMBEDDINGS_PATH):
        with pytest.raises(NotAnAnswerError):
            mend_answer(body, Expected(path, 0))


def test_an_answer_of_openai_is_passed_on_byte_for_byte() -> None:
    choice = {"index": 0, "message": {"role": "assistant", "content": "x"}, "finish_reason": "stop", "odd": 1}
    answer = {
        "id": "x",
        "object": "chat.completion",
        "created": 1,
        "choices": [choice],
        "model": "m",
        "usage": {**counts(1), "a": 1},
    }
    body = json.dumps(answer, indent=3).encode()
    assert mend_answer(body, Expected(CHAT_PATH, 0)) == body


def test_a_whole_answer_as_a_stream_says_the_same() -> None:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": "hi", "tool_calls": [call]},
        "finish_reason": "stop",
    }
    body = mend_answer(
        json.dumps({"id": "x", "choices": [choice], "usage": {"prompt_tokens": 1}}).encode(), Expected(CHAT_PATH, 0)
    )
    found = [sse.parse(event) for event in sse.events(as_events(body, CHAT_PATH))]
    assert texts(found) == {0: "hi"}
    assert found[0] is not None
    assert found[0]["choices"][0]["delta"]["tool_calls"] == [{"index": 0, **call}]
    assert found[1] is not None
    assert found[1]["choices"][0]["finish_reason"] == "tool_calls"
    assert found[-1] is None


def test_a_streamed_completion_is_mended_as_a_chat_is() -> None:
    chunks = [{"choices": [{"text": "a"}]}, {"choices": [{"text": None}]}, {"choices": [{"text": "b"}]}]
    found = run(*chunks, path=COMPLETIONS_PATH)
    assert [each["choices"][0]["text"] for each in found if each] == ["a", "", "b", ""]
    assert found[-2] is not None
    assert (found[-2]["object"], found[-2]["choices"][0]["finish_reason"]) == ("text_completion", "stop")


def test_the_index_of_a_completion_keeps_its_prompt() -> None:
    chunks = [{"choices": [{"text": "b", "index": 1}]}, {"choices": [{"text": "a", "index": 0}]}]
    found = run(*chunks, path=COMPLETIONS_PATH, choices=2)
    assert [each["choices"][0]["index"] for each in found[:2] if each] == [1, 0]


NAMES = (
    *("id", "choices", "delta", "message", "content", "index", "finish_reason", "tool_calls", "function", "arguments"),
    *("usage", "x_groq", "error", "text", "type", "thinking", "data", "embedding", "role", "name", "object"),
)
WORDS = st.sampled_from(["", "a", "stop", "error", "text", "thinking"])
LEAVES = st.none() | st.booleans() | st.integers(-2, 3) | WORDS
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4),
    max_leaves=12,
)
CHUNKS = st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=5) | VALUES


@settings(max_examples=300)
@given(st.lists(CHUNKS, max_size=6), st.integers(1, 3), st.sampled_from([CHAT_PATH, COMPLETIONS_PATH]), st.data())
def test_whatever_a_stream_holds_and_however_it_is_cut_whole_events_come_out(
    chunks: list[Any], choices: int, path: str, data: st.DataObject
) -> None:
    whole = b"".join(map(sse.event, chunks)) + data.draw(st.sampled_from([b"", sse.DONE, b"data: [DONE]", b"data: {"]))
    step = data.draw(st.integers(1, max(1, len(whole))))
    splitter = ForeignSplitter(Expected(path, choices))
    said = b"".join([splitter.feed(whole[at : at + step]) for at in range(0, len(whole), step)]) + splitter.finish()
    at_once = ForeignSplitter(Expected(path, choices))
    assert len(list(sse.events(at_once.feed(whole) + at_once.finish()))) == len(list(sse.events(said)))
    assert not said or said.endswith(b"\n\n")
    assert said.count(sse.DONE) <= 1
    for event in sse.events(said):
        parsed = sse.parse(event)
        for choice in (parsed or {}).get("choices", ()):
            assert 0 <= choice["index"] < choices
    assert splitter.finish() == b""


@settings(max_examples=300)
@given(CHUNKS, st.sampled_from([CHAT_PATH, COMPLETIONS_PATH, EMBEDDINGS_PATH]))
def test_whatever_a_whole_answer_holds_it_is_mended_or_refused(answer: Any, path: str) -> None:
    try:
        mended = mend_answer(json.dumps(answer).encode(), Expected(path, 0))
    except NotAnAnswerError:
        return
    assert mend_answer(mended, Expected(path, 0)) == mended, "mending twice changes nothing"
