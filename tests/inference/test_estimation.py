"""What is reserved for a request before it runs."""

import base64
import json
import random
import tracemalloc
from typing import Any

import pytest
from tests.inference.making import CHAT, as_json

from quarterdeck.accounting.pricing import Rates, estimated_cost
from quarterdeck.inference.bounds import Bounds, widest
from quarterdeck.inference.call import Operation
from quarterdeck.inference.estimation import (
    MAX_ESTIMATE,
    Estimate,
    estimate,
    fit,
    for_any_tokenizer,
    likely_tokens,
    structure_bytes,
    with_prompt,
)
from quarterdeck.inference.request import decode
from quarterdeck.money import MAX_MICRODOLLARS
from quarterdeck.settings.prices import Price

COMPLETION = {"model": "m", "prompt": "Hi"}
PICTURE = "data:image/png;base64," + base64.b64encode(random.Random(1).randbytes(1_000_000)).decode()


def of(asked: dict[str, Any], operation: Operation = Operation.CHAT, **more: Any) -> Estimate:
    return estimate(decode(operation, as_json(asked)), **more)


def with_parts(*parts: dict[str, Any]) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}, *parts]}]}


@pytest.mark.parametrize(
    ("asked", "operation", "output", "most"),
    [
        (CHAT, Operation.CHAT, 256, 4096),
        (CHAT | {"max_tokens": 10}, Operation.CHAT, 10, 10),
        (CHAT | {"max_tokens": 10, "max_completion_tokens": 20}, Operation.CHAT, 20, 20),
        (CHAT | {"max_tokens": 20, "max_completion_tokens": 10}, Operation.CHAT, 20, 20),  # endpoints read either
        (CHAT | {"max_tokens": 10, "n": 3}, Operation.CHAT, 30, 30),
        (CHAT | {"max_tokens": 10, "n": 0}, Operation.CHAT, 10, 10),
        (CHAT | {"n": 2}, Operation.CHAT, 512, 8192),
        (COMPLETION, Operation.COMPLETIONS, 16, 16),
        (COMPLETION | {"max_tokens": 10}, Operation.COMPLETIONS, 10, 10),
        (COMPLETION | {"max_tokens": 10, "best_of": 5}, Operation.COMPLETIONS, 50, 50),
        (COMPLETION | {"max_tokens": 10, "n": 7, "best_of": 5}, Operation.COMPLETIONS, 70, 70),
        (COMPLETION | {"prompt": ["a"] * 500, "max_tokens": 1000}, Operation.COMPLETIONS, 500_000, 500_000),
        (COMPLETION | {"prompt": [[1, 2], [3]], "n": 2, "max_tokens": 10}, Operation.COMPLETIONS, 40, 40),
        (COMPLETION | {"prompt": [1, 2, 3], "n": 2, "max_tokens": 10}, Operation.COMPLETIONS, 20, 20),
        ({"model": "m", "input": "Hi"}, Operation.EMBEDDINGS, 0, 0),
    ],
)
def test_an_answer_is_reserved_for_every_choice(
    asked: dict[str, Any], operation: Operation, output: int, most: int
) -> None:
    found = of(asked, operation)
    assert (found.output, found.most_output) == (output, most)
    assert found.total == found.prompt + output


def test_no_estimate_is_more_than_redis_can_count() -> None:
    found = of(CHAT | {"max_tokens": 2**31 - 1, "n": 2**31 - 1})
    assert found.total == MAX_ESTIMATE
    assert found.most_output == (2**31 - 1) ** 2
    assert estimated_cost(found.most_prompt, found.most_output, Rates.of(Price(output="9"))) == MAX_MICRODOLLARS  # type: ignore[arg-type]


def test_an_answer_is_reserved_up_to_the_models_context() -> None:
    bounds = Bounds(context=2048, output=2048)
    assert of(CHAT | {"max_tokens": 2**31 - 1}, bounds=bounds).output == 2048
    found = of(CHAT, bounds=bounds)
    assert (found.output, found.most_output, found.limit) == (256, 2048, None)  # the context is the limit
    assert of(CHAT, bounds=Bounds(context=8192, output=1000)).limit == 1000
    assert of(CHAT | {"messages": [{"role": "user", "content": "x" * 9000}]}, bounds=bounds).most_prompt == 2048


def test_a_keys_own_limit_is_reserved_for_a_request_that_has_none() -> None:
    found = of(CHAT, most=5)
    assert (found.output, found.most_output, found.limit, found.is_open) == (5, 5, None, False)
    assert of(COMPLETION, Operation.COMPLETIONS, most=500).most_output == 16
    assert of(CHAT | {"max_tokens": 3}, most=5).most_output == 3


def test_token_ids_are_counted() -> None:
    ids = {"model": "m", "prompt": [7] * 1000, "max_tokens": 1}
    assert of(ids, Operation.COMPLETIONS).prompt == 1000
    batch = {"model": "m", "input": [[7] * 10, [7] * 20]}
    found = of(batch, Operation.EMBEDDINGS)
    assert found.prompt == 30
    assert found.most_prompt >= 30


@pytest.mark.parametrize("text", ["7" * 999, "语言模型" * 99, "qzxv" * 99, "\U0001f600" * 99, "é" * 99, "a b c " * 99])
def test_no_tokenizer_makes_more_tokens_of_a_prompt_than_are_held(text: str) -> None:
    found = of({"model": "m", "messages": [{"role": "user", "content": text}]})
    assert found.most_prompt >= len(text.encode())
    assert found.prompt <= found.most_prompt


@pytest.mark.parametrize(
    ("text", "least", "most"), [("7" * 300, 300, 300), ("语言模型" * 100, 400, 800), ("lazy dogs " * 40, 80, 120)]
)
def test_limits_reserve_a_likely_count(text: str, least: int, most: int) -> None:
    assert least <= likely_tokens(text.encode()) <= most


@pytest.mark.parametrize(
    ("part", "most"),
    [
        ({"type": "image_url", "image_url": {"url": PICTURE}}, 2048),
        ({"type": "image_url", "image_url": PICTURE}, 2048),
        ({"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}, 2048),
        ({"type": "input_audio", "input_audio": {"data": PICTURE[22:], "format": "wav"}}, 40_000),
        ({"type": "file", "file": {"file_data": PICTURE, "filename": "a.pdf"}}, 131_072),
        ({"type": "video_url", "video_url": {"url": PICTURE}}, 131_072),
    ],
)
def test_media_count_a_bounded_number_of_tokens(part: dict[str, Any], most: int) -> None:
    text = of(with_parts())
    found = of(with_parts(part))
    assert 2048 <= found.prompt - text.prompt <= most + 50
    assert 2048 <= found.most_prompt - text.most_prompt <= most + 200


def test_a_picture_that_is_read_at_any_size_counts_as_much_as_a_file() -> None:
    asked = with_parts({"type": "image_url", "image_url": {"url": PICTURE}})
    assert of(asked | {"mm_processor_kwargs": {"max_pixels": 10**9}}).most_prompt > 131_072
    assert of(asked | {"mm_processor_kwargs": {}}, bounds=Bounds(context=4096)).most_prompt == 4096


def test_text_that_only_looks_like_a_picture_is_text() -> None:
    assert of(with_parts({"type": "text", "text": PICTURE})).most_prompt > 1_000_000


def test_each_pair_of_a_score_is_read() -> None:
    asked = {"model": "m", "text_1": "q" * 1000, "text_2": ["d"] * 50}
    assert of(asked, Operation.SCORE).most_prompt >= 50 * 1000
    assert of(asked, Operation.SCORE, bounds=Bounds(context=512)).most_prompt <= 50 * 512


def test_an_open_answer_is_shortened_to_what_is_left_of_a_budget() -> None:
    rates = Rates.of(Price(input="1", output="10"))  # type: ignore[arg-type]  # pydantic reads it
    whole = of(CHAT)
    smaller = fit(whole, 10_000, rates)
    assert smaller is not None
    assert smaller.limit is not None
    assert 256 <= smaller.limit < 4096
    assert 9_900 <= estimated_cost(smaller.most_prompt, smaller.most_output, rates) <= 10_000
    assert fit(whole, 2_000, rates) is None  # fewer than the usual 256
    assert fit(of(CHAT | {"max_tokens": 4096}), 10_000, rates) is None  # the request says how long


def test_a_route_is_bounded_by_the_widest_of_its_models() -> None:
    assert widest([Bounds(1000, 500), Bounds(2000, 100)]) == Bounds(2000, 500)
    assert widest([Bounds(1000, 500), Bounds(None, 100)]).context is None


def nested(depth: int) -> list[dict[str, Any]]:
    schema: dict[str, Any] = {"type": "object"}
    for _ in range(depth):
        schema = {"a": schema}
    return [{"type": "function", "function": {"name": "f", "parameters": schema}}]


@pytest.mark.parametrize("times", [1, 40])
@pytest.mark.parametrize("depth", [50, 400])
def test_tools_are_held_as_a_template_prints_them(depth: int, times: int) -> None:
    tools = nested(depth) * times
    printed = len(json.dumps(tools, indent=4))
    assert of(CHAT | {"tools": tools}).most_prompt >= printed
    usual = nested(2) * 3
    assert of(CHAT | {"tools": usual}).most_prompt <= len(as_json(CHAT | {"tools": usual})) + 1000


def test_large_tools_are_not_written_out_to_be_counted() -> None:
    request = decode(Operation.CHAT, as_json(CHAT | {"tools": nested(900) * 200}))
    tracemalloc.start()
    try:
        assert estimate(request).most_prompt >= 200 * 4 * 900 * 900
        assert tracemalloc.get_traced_memory()[1] < 8 * 2**20
    finally:
        tracemalloc.stop()


def test_a_picture_is_held_in_a_part_without_a_type_that_has_a_text_as_well() -> None:
    url = {"url": "https://img.example.com/a.png"}
    parts = [{"text": "Hi", "image_url": url}, {"type": "text", "text": "Hi", "image_url": url}]
    for part in parts:
        assert of(with_parts(part)).most_prompt >= 2048


def test_a_prompt_that_one_models_tokenizer_has_counted_is_an_upper_bound_for_that_model_only() -> None:
    reserved = of(CHAT | {"max_tokens": 10})
    counted = with_prompt(reserved, 3)
    assert counted.most_prompt < counted.any_prompt == reserved.most_prompt
    assert for_any_tokenizer(counted).most_prompt == reserved.most_prompt


def test_structure_counts_and_media_do_not() -> None:
    assert structure_bytes(b'{"a": ["data:image/png;base64,AAAA+/=="]}') == 12
    assert structure_bytes(b"[{},{}]") == 7
    assert structure_bytes("aé".encode()) == 2
