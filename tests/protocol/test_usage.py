"""An engine's usage is read where it is valid."""

from typing import Any

import msgspec
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
        ({"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}, None),  # a server that does not count
        ({"prompt_tokens": 5.0, "completion_tokens": 3.0, "total_tokens": 8.0}, Usage(5, 0, 3, 0)),
        ({"prompt_tokens": 5.5, "completion_tokens": 3}, None),
        ({"prompt_tokens": float("inf"), "completion_tokens": 3}, None),
        ({"prompt_tokens": 1e300, "completion_tokens": 3}, None),
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


@pytest.mark.parametrize(
    ("server", "said", "read"),
    [
        (
            "OpenAI: reasoning is part of the completion",
            {
                "prompt_tokens": 20,
                "completion_tokens": 103,
                "total_tokens": 123,
                "prompt_tokens_details": {"cached_tokens": 16},
                "completion_tokens_details": {"reasoning_tokens": 94},
            },
            Usage(20, 16, 103, 94),
        ),
        (
            "xAI: reasoning beside the completion",
            {
                "prompt_tokens": 20,
                "completion_tokens": 9,
                "total_tokens": 123,
                "prompt_tokens_details": {"cached_tokens": 4},
                "completion_tokens_details": {"reasoning_tokens": 94},
            },
            Usage(20, 4, 103, 94),
        ),
        (
            "Gemini: thoughts are in the total only",
            {"prompt_tokens": 7, "completion_tokens": 9, "total_tokens": 110},
            Usage(7, 0, 103, 0),
        ),
        (
            "DeepSeek",
            {
                "prompt_tokens": 100,
                "prompt_cache_hit_tokens": 64,
                "prompt_cache_miss_tokens": 36,
                "completion_tokens": 5,
                "total_tokens": 105,
            },
            Usage(100, 64, 5, 0),
        ),
        (
            "Anthropic behind a gateway: the cache is beside the prompt",
            {
                "prompt_tokens": 10,
                "completion_tokens": 5,
                "total_tokens": 115,
                "cache_read_input_tokens": 70,
                "cache_creation_input_tokens": 30,
            },
            Usage(110, 70, 5, 0),
        ),
        (
            "Anthropic behind a gateway that adds it to the prompt",
            {
                "prompt_tokens": 110,
                "completion_tokens": 5,
                "total_tokens": 115,
                "cache_read_input_tokens": 70,
                "cache_creation_input_tokens": 30,
            },
            Usage(110, 70, 5, 0),
        ),
        (
            "Anthropic",
            {"input_tokens": 10, "output_tokens": 5, "cache_read_input_tokens": 70, "cache_creation_input_tokens": 30},
            Usage(110, 70, 5, 0),
        ),
        (
            "OpenRouter",
            {
                "prompt_tokens": 50,
                "completion_tokens": 40,
                "total_tokens": 90,
                "cost": 0.01,
                "prompt_tokens_details": {"cached_tokens": 20},
                "completion_tokens_details": {"reasoning_tokens": 30},
            },
            Usage(50, 20, 40, 30),
        ),
        (
            "Moonshot",
            {"prompt_tokens": 9, "completion_tokens": 1, "total_tokens": 10, "cached_tokens": 8},
            Usage(9, 8, 1, 0),
        ),
        ("Ollama", {"prompt_tokens": 9, "completion_tokens": 1, "total_tokens": 10}, Usage(9, 0, 1, 0)),
        (
            "reasoning that is more than the completion, without a total",
            {"prompt_tokens": 9, "completion_tokens": 1, "completion_tokens_details": {"reasoning_tokens": 8}},
            Usage(9, 0, 9, 8),
        ),
        (
            "an embedding",
            {"prompt_tokens": 9, "total_tokens": 9, "completion_tokens": 0},
            Usage(9, 0, 0, 0),
        ),
        (
            "a total that is no count",
            {"prompt_tokens": 9, "completion_tokens": 1, "total_tokens": 10**12},
            Usage(9, 0, 1, 0),
        ),
        (
            "a total that is too small",
            {"prompt_tokens": 9, "completion_tokens": 1, "total_tokens": 3},
            Usage(9, 0, 1, 0),
        ),
    ],
)
def test_what_servers_count_beside_the_two_counts_is_billed(server: str, said: dict[str, Any], read: Usage) -> None:
    assert parse_usage(said) == read
    assert parse_usage(msgspec.convert(said, Counts)) == read
