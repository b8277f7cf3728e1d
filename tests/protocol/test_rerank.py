"""Rerank requests of Cohere, Jina and vLLM become vLLM's scores, and these their answers."""

import json
import math
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quarterdeck.errors import BadRequestError
from quarterdeck.protocol.rerank import MAX_DOCUMENTS, ranked_answer, read_ranking


def request(version: int = 1, **members: Any) -> Any:
    return read_ranking(
        json.dumps({"model": "m", "query": "q", "documents": ["a", "b"]} | members).encode(), version=version
    )


def answer(*scores: float) -> bytes:
    data = [{"index": index, "object": "score", "score": score} for index, score in enumerate(scores)]
    return json.dumps({"model": "m", "data": data, "usage": {"prompt_tokens": 7, "total_tokens": 7}}).encode()


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=30), st.integers(1, 40))
def test_the_best_come_first_and_no_more_than_asked_for(scores: list[float], top_n: int) -> None:
    ranking = request(documents=[f"d{at}" for at in range(len(scores))], top_n=top_n)
    results = json.loads(ranked_answer(ranking, answer(*scores), "id"))["results"]
    assert len(results) == min(top_n, len(scores))
    shown = [each["relevance_score"] for each in results]
    assert shown == sorted(scores, reverse=True)[:top_n]
    for each in results:
        assert scores[each["index"]] == each["relevance_score"]
        assert each["document"] == {"text": f"d{each['index']}"}


def test_equal_scores_keep_the_order() -> None:
    results = json.loads(ranked_answer(request(), answer(0.5, 0.5), "id"))["results"]
    assert [each["index"] for each in results] == [0, 1]


def test_the_score_request_has_the_texts() -> None:
    sent = msgspec.json.decode(request(documents=["x", {"text": "y"}], user="me").score_body)
    assert sent == {"model": "m", "queries": "q", "documents": ["x", "y"], "user": "me"}
    fields = request(documents=[{"title": "t", "body": "b", "n": 3}], rank_fields=["title", "body"])
    assert fields.documents == ("title: t\nbody: b",)


@pytest.mark.parametrize(
    ("version", "asked", "shown"), [(1, None, True), (1, False, False), (2, None, False), (2, True, True)]
)
def test_documents_are_returned_as_each_api_does(version: int, asked: bool | None, shown: bool) -> None:
    ranking = request(version, return_documents=asked)
    results = json.loads(ranked_answer(ranking, answer(1, 0), "id"))["results"]
    assert all(("document" in each) is shown for each in results)


@pytest.mark.parametrize(
    ("members", "param"),
    [
        ({"documents": []}, "documents"),
        ({"documents": ["x"] * (MAX_DOCUMENTS + 1)}, "documents"),
        ({"documents": "x"}, "documents"),
        ({"documents": [{"image": "https://a/b.png"}]}, "documents[0]"),
        ({"documents": ["a", {"text": 3}]}, "documents[1]"),
        ({"documents": [{"a": "x"}], "rank_fields": ["b"]}, "documents[0]"),
        ({"top_n": 0}, "top_n"),
        ({"query": None}, "query"),
    ],
)
def test_a_bad_request_names_its_field(members: dict[str, Any], param: str) -> None:
    with pytest.raises(BadRequestError) as raised:
        request(**members)
    assert raised.value.param == param


@pytest.mark.parametrize("data", [[0.1], [0.1, 0.2, 0.3], [0.1, math.nan]])
def test_an_answer_without_a_score_for_each_document_is_refused(data: list[float]) -> None:
    body = answer(*data).replace(b"NaN", b"null")
    with pytest.raises((ValueError, msgspec.DecodeError)):
        ranked_answer(request(), body, "id")
