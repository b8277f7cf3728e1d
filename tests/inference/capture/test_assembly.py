"""A stream's events make the message that a whole answer would have had."""

from hypothesis import given
from hypothesis import strategies as st
from tests.inference.making import DONE, SAID, as_json, delta, event, usage

from quarterdeck.inference.capture.assembly import FOLD_BYTES, OVERHEAD, StreamAssembly
from quarterdeck.inference.capture.cutting import MAX_BROKEN
from quarterdeck.redaction.redactor import Redactor

REDACTOR = Redactor()


def assembled(*events: bytes, most: int = 100_000) -> StreamAssembly:
    subject = StreamAssembly(most)
    for each in events:
        subject.add(each)
    return subject


def test_a_chat_is_one_message() -> None:
    expected = {"index": 0, "message": {"role": "assistant", "content": "Hello there"}, "finish_reason": "stop"}
    assert assembled(*SAID, usage(), DONE).choices() == [expected]
    assert assembled(b"".join((*SAID, usage(), DONE))).choices() == [expected]


def test_tool_calls_are_joined_by_their_index() -> None:
    def call(index: int, **fields: object) -> bytes:
        return event({"choices": [{"index": 0, "delta": {"tool_calls": [{"index": index, **fields}]}}]})

    events = [
        call(0, id="call_1", type="function", function={"name": "search", "arguments": ""}),
        call(0, function={"arguments": '{"q":'}),
        call(1, id="call_2", type="function", function={"name": "add", "arguments": "{"}),
        call(0, function={"arguments": '"x"}'}),
        call(1, function={"arguments": "}"}),
        delta(finish="tool_calls"),
    ]
    (choice,) = assembled(*events).choices()
    assert choice["message"]["tool_calls"] == [
        {"id": "call_1", "type": "function", "function": {"name": "search", "arguments": '{"q":"x"}'}},
        {"id": "call_2", "type": "function", "function": {"name": "add", "arguments": "{}"}},
    ]
    assert choice["finish_reason"] == "tool_calls"


def test_reasoning_refusals_and_choices_are_kept_apart() -> None:
    events = [
        event({"choices": [{"index": 1, "delta": {"role": "assistant", "reasoning_content": "Hm"}}]}),
        event({"choices": [{"index": 0, "delta": {"refusal": "No"}}, {"index": 1, "delta": {"content": "Yes"}}]}),
        event({"choices": [{"index": 1, "delta": {}, "finish_reason": "length"}]}),
    ]
    first, second = assembled(*events).choices()
    assert first == {"index": 0, "message": {"role": "assistant", "refusal": "No"}, "finish_reason": None}
    assert second["message"] == {"role": "assistant", "content": "Yes", "reasoning_content": "Hm"}
    assert second["finish_reason"] == "length"


def test_a_completion_has_text() -> None:
    events = [event({"choices": [{"index": 0, "text": text}]}) for text in ("a", "b")]
    assert assembled(*events).choices() == [{"index": 0, "text": "ab", "finish_reason": None}]


def test_what_is_no_chunk_is_skipped() -> None:
    (choice,) = assembled(
        b": comment\n\n", b"data: [1]\n\n", delta("a"), b'data: {"choices": 3}\n\n', delta("b")
    ).choices()
    assert choice["message"]["content"] == "ab"


@given(st.lists(st.text(max_size=40), max_size=60), st.data())
def test_any_split_into_pieces_gives_the_same_choices(texts: list[str], data: st.DataObject) -> None:
    events = [delta(text) for text in texts]
    pieces: list[bytes] = []
    while events:
        count = data.draw(st.integers(1, len(events)))
        pieces.append(b"".join(events[:count]))
        del events[:count]
    assert assembled(*pieces).choices() == assembled(*[delta("".join(texts))] * bool(texts)).choices()


def test_a_stream_holds_no_more_than_its_bound_and_one_fold() -> None:
    subject = StreamAssembly(1000)
    for _ in range(3000):
        subject.add(delta("x" * 100))
        assert subject._size <= FOLD_BYTES
    subject.add(delta(finish="length"))
    (choice,) = subject.choices()
    assert len(choice["message"]["content"]) == 1000 - OVERHEAD - MAX_BROKEN  # no word is known to be whole
    assert subject.is_cut
    assert subject.total == 3000 * 100 + OVERHEAD
    assert choice["finish_reason"] == "length"


def test_a_secret_in_which_an_answer_is_cut_is_left_out() -> None:
    for most in range(80, 120):
        subject = StreamAssembly(most)
        for text in ("It is ", "4111 11", "11 1111 1111, mail ", "ann@exa", "mple.com or so."):
            subject.add(delta(text))
        text = subject.choices()[0]["message"].get("content", "")
        assert "4111" not in REDACTOR.text(text) and "ann" not in REDACTOR.text(text), (most, text)


def test_choices_and_tool_calls_without_text_are_bounded_too() -> None:
    subject = StreamAssembly(1000)
    for index in range(5000):
        subject.add(event({"choices": [{"index": index, "delta": {"tool_calls": [{"index": index}]}}]}))
    assert len(as_json(subject.choices())) < 5000
    assert subject.is_cut


_json = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["index", "delta", "message", "tool_calls", "function", "function_call", "content", "text", "id"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=15,
)


@given(st.lists(_json, max_size=4))
def test_no_engines_answer_breaks_the_stream_that_it_is_assembled_from(choices: list[object]) -> None:
    as_json(assembled(event({"choices": choices}), delta("a")).choices())
