"""An engine's usage is read where it is valid."""

from typing import Any

import pytest

from quarterdeck.protocol.usage import MAX_COUNT, Counts, ParsedAnswer, Usage, parse_answer, parse_usage


@pytest.mark.parametrize(
    ("said", "read"),
    [
        ({"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}, Usage(7, 0, 3, 0)),
        ({"prompt_tokens": 7, "total_tokens": 7}, Usage(7, 0, 0, 0)),
        ({"input_tokens": 7, "output_tokens": 3}, Usage(7, 0, 3, 0)),
        (
            {
                "prompt_tokens": 7,
                "completion_tokens": 3,
                "prompt_tokens_details": {"cached_tokens": 4},
                "completion_tokens_details": {"reasoning_tokens": 2},
            },
            Usage(7, 4, 3, 2),
        ),
        ({"prompt_tokens": 7, "completion_tokens": 3, "prompt_tokens_details": None}, Usage(7, 0, 3, 0)),
        (
            {"prompt_tokens": 7, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": -4}},
            Usage(7, 0, 3, 0),
        ),
        (
            {"prompt_tokens": 7, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 99}},
            Usage(7, 7, 3, 0),
        ),
        ({"prompt_tokens": -1, "completion_tokens": 3}, None),
        ({"prompt_tokens": 7, "completion_tokens": -3}, None),
        ({"prompt_tokens": True, "completion_tokens": 3}, None),
        ({"prompt_tokens": 7.5, "completion_tokens": 3}, None),
        ({"prompt_tokens": "7", "completion_tokens": 3}, None),
        ({"prompt_tokens": 7, "completion_tokens": None}, None),
        ({"prompt_tokens": MAX_COUNT + 1, "completion_tokens": 3}, None),
        ({"prompt_tokens": 10**30, "completion_tokens": 3}, None),
        ({}, None),
        (None, None),
        ([1], None),
        (True, None),
    ],
)
def test_a_count_is_a_count_or_absent(said: Any, read: Usage | None) -> None:
    assert parse_usage(said) == read


def test_an_answer_is_read_for_what_a_record_needs() -> None:
    answer = parse_answer(b'{"id":"x","choices":[{"finish_reason":"stop","message":{}}],"usage":{"prompt_tokens":1}}')
    assert answer is not None
    assert (answer.id, answer.choices[0].finish_reason if answer.choices else None) == ("x", "stop")
    assert answer.usage == Counts(prompt_tokens=1)


@pytest.mark.parametrize("odd", [b'"id":7', b'"choices":{}', b'"choices":[1]', b'"choices":[{"finish_reason":1}]'])
def test_what_an_odd_answer_used_was_used_all_the_same(odd: bytes) -> None:
    assert parse_answer(b"{" + odd + b',"usage":{"prompt_tokens":1}}') == ParsedAnswer(usage=Counts(prompt_tokens=1))


def test_a_usage_that_is_none_counts_as_absent() -> None:
    assert parse_answer(b'{"usage":[]}') == ParsedAnswer()


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"id":"\xff"}', b'{"a":' + b"[" * 100_000])
def test_what_is_no_answer_is_none(body: bytes) -> None:
    assert parse_answer(body) is None
