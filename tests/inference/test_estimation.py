"""The tokens that are reserved for a request before it runs."""

from typing import Any

import pytest
from tests.inference.making import CHAT, as_json

from quarterdeck.inference.call import Operation
from quarterdeck.inference.estimation import MAX_ESTIMATE, Estimate, estimate
from quarterdeck.inference.request import decode

COMPLETION = {"model": "m", "prompt": "Hi"}


@pytest.mark.parametrize(
    ("asked", "operation", "output"),
    [
        (CHAT, Operation.CHAT, 256),
        (CHAT | {"max_tokens": 10}, Operation.CHAT, 10),
        (CHAT | {"max_tokens": 10, "max_completion_tokens": 20}, Operation.CHAT, 20),
        (CHAT | {"max_tokens": 10, "n": 3}, Operation.CHAT, 30),
        (CHAT | {"max_tokens": 10, "n": 0}, Operation.CHAT, 10),
        (COMPLETION | {"max_tokens": 10}, Operation.COMPLETIONS, 10),
        ({"model": "m", "input": "Hi"}, Operation.EMBEDDINGS, 0),
    ],
)
def test_a_request_is_estimated_by_its_bytes_and_what_it_may_say(
    asked: dict[str, Any], operation: Operation, output: int
) -> None:
    body = as_json(asked)
    prompt = -(-len(body) // 4)
    assert estimate(decode(operation, body)) == Estimate(prompt, output, prompt + output)


def test_no_estimate_is_more_than_redis_can_count() -> None:
    body = as_json(CHAT | {"max_tokens": 2**31 - 1, "n": 2**31 - 1})
    assert estimate(decode(Operation.CHAT, body)).total == MAX_ESTIMATE
