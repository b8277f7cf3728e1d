"""Embeddings of other servers: one for each input, in order, encoded as asked, or an error."""

import base64
import json
import struct
from typing import Any

import pytest

from quarterdeck.protocol.foreign.answers import mend_answer
from quarterdeck.protocol.foreign.expected import EMBEDDINGS_PATH, Expected, NotAnAnswerError, expected_answer
from quarterdeck.protocol.requests import EmbeddingRequest
from quarterdeck.protocol.usage import parse_answer, parse_usage

NUMBERS = [0.5, -1.0]
PACKED = base64.b64encode(struct.pack("<2f", *NUMBERS)).decode()


def mended(rows: Any, *, encoding: str = "float", count: int = 2, **more: Any) -> dict[str, Any]:
    body = json.dumps({"data": rows, **more}).encode()
    found: dict[str, Any] = json.loads(mend_answer(body, Expected(EMBEDDINGS_PATH, count, "m", encoding)))
    return found


def row(embedding: Any, index: Any = None) -> dict[str, Any]:
    return {"embedding": embedding} | ({} if index is None else {"index": index})


@pytest.mark.parametrize("embedding", [NUMBERS, PACKED, [NUMBERS], {"float": NUMBERS}, {"base64": PACKED}])
@pytest.mark.parametrize(("encoding", "expected"), [("float", NUMBERS), ("base64", PACKED)])
def test_an_embedding_is_encoded_as_the_request_asks(embedding: Any, encoding: str, expected: Any) -> None:
    found = mended([row(embedding, 0), row(embedding, 1)], encoding=encoding)
    assert [each["embedding"] for each in found["data"]] == [expected] * 2


@pytest.mark.parametrize("indices", [(1, 0), (2, 1)])
def test_embeddings_are_put_into_the_order_of_their_inputs(indices: tuple[int, int]) -> None:
    found = mended([row([2.0], indices[0]), row([1.0], indices[1])])
    assert [(each["index"], each["embedding"]) for each in found["data"]] == [(0, [1.0]), (1, [2.0])]


@pytest.mark.parametrize("indices", [(None, None), (0, 0), ("0", "1")])
def test_indices_that_say_nothing_are_counted(indices: tuple[Any, Any]) -> None:
    found = mended([row([1.0], indices[0]), row([2.0], indices[1])])
    assert [(each["index"], each["embedding"]) for each in found["data"]] == [(0, [1.0]), (1, [2.0])]


@pytest.mark.parametrize(
    "rows",
    [[], [row(NUMBERS)], [row(NUMBERS)] * 3, [row(None), row(NUMBERS)], [row([]), row([])], [row("?"), row("?")]],
)
def test_a_missing_embedding_is_an_error(rows: Any) -> None:
    with pytest.raises(NotAnAnswerError):
        mended(rows)


def test_what_a_clients_types_require_is_added() -> None:
    found = mended([row(NUMBERS), row(NUMBERS)])
    assert (found["object"], found["model"]) == ("list", "m")
    assert found["usage"] == {"prompt_tokens": 0, "total_tokens": 0}
    parsed = parse_answer(json.dumps(found).encode())
    assert parsed is not None
    assert parse_usage(parsed.usage) is None, "0 is not taken for a count"


def test_a_usage_without_a_total_gets_one() -> None:
    found = mended([row(NUMBERS)] * 2, usage={"prompt_tokens": 3})
    assert found["usage"] == {"prompt_tokens": 3, "total_tokens": 3}


@pytest.mark.parametrize(
    ("given", "count"), [("a", 1), (["a", "b"], 2), ([1, 2, 3], 1), ([[1, 2], [3]], 2), ([], 0), (["a"], 1)]
)
def test_there_is_an_embedding_for_each_input(given: Any, count: int) -> None:
    request = EmbeddingRequest(model="m", input=given, encoding_format="base64")
    expected = expected_answer(EMBEDDINGS_PATH, request, "m")
    assert (expected.choices, expected.encoding) == (count, "base64")
