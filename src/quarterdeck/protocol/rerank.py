"""Rerank requests of Cohere (v1, v2), Jina and vLLM, as vLLM's scores and back. Pure.

The forms differ little: documents are strings or objects, and an answer is a list of `index` and `relevance_score`, the
best first. One answer serves all: `usage` is Jina's and vLLM's, `meta` Cohere's.
"""

import math
from collections.abc import Sequence
from typing import Annotated, Any

import msgspec

from quarterdeck.errors import BadRequestError
from quarterdeck.protocol import requests

MAX_DOCUMENTS = 10_000
"""As Cohere takes."""
UNIT_DOCUMENTS = 100
"""Cohere counts a search unit for each 100 documents."""

Positive = Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)]


class RerankRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What is read of a request. Parameters of other servers that change no score here (`max_chunks_per_doc`) are
    ignored."""

    model: str
    query: str | dict[str, Any]
    documents: list[str | dict[str, Any]]
    top_n: Positive | None = None
    return_documents: bool | None = None
    rank_fields: list[str] | None = None
    truncate_prompt_tokens: int | None = None
    user: str | None = None
    safety_identifier: str | None = None
    metadata: dict[str, Any] | None = None


class Score(msgspec.Struct, frozen=True):
    index: int
    score: float


class Scores(msgspec.Struct, frozen=True):
    """vLLM's answer to `/v1/score`."""

    data: list[Score]
    id: str = ""
    model: str = ""
    usage: dict[str, Any] | None = None


class Ranking(msgspec.Struct, frozen=True):
    """A request's texts, and how its answer is written."""

    model: str
    query: str
    documents: tuple[str, ...]
    top_n: int
    returns_documents: bool
    version: int
    score_body: bytes
    """The request to `/v1/score`."""


def read_ranking(body: bytes, *, version: int) -> Ranking:
    """`version`: 2 for `/v2/rerank`. Raises BadRequestError."""
    request: RerankRequest = requests.decode(body.removeprefix(requests.BOM), RerankRequest)
    if not request.documents:
        raise BadRequestError("'documents' must have at least one document.", param="documents", code="invalid_value")
    if (count := len(request.documents)) > MAX_DOCUMENTS:
        raise BadRequestError(
            f"Invalid 'documents': array too long. Expected an array with maximum length {MAX_DOCUMENTS}, but got an "
            f"array with length {count} instead.",
            param="documents",
            code="array_above_max_length",
        )
    query = _text(request.query, None, "query")
    documents = tuple(_text(each, request.rank_fields, f"documents[{at}]") for at, each in enumerate(request.documents))
    members: dict[str, object] = {"model": request.model, "queries": query, "documents": documents}
    for name in ("truncate_prompt_tokens", "user", "safety_identifier", "metadata"):
        if (value := getattr(request, name)) is not None:
            members[name] = value
    returns = request.return_documents
    return Ranking(
        request.model,
        query,
        documents,
        min(request.top_n or count, count),
        version == 1 if returns is None else returns,
        version,
        msgspec.json.encode(members),
    )


def ranked_answer(ranking: Ranking, answer: bytes, id: str) -> bytes:
    """The answer to a request, of vLLM's answer to its `score_body`. Equal scores keep the documents' order. Raises
    ValueError where the answer has not one finite score for each document."""
    scores = msgspec.json.decode(answer, type=Scores)
    found = {each.index: each.score for each in scores.data}
    if sorted(found) != list(range(len(ranking.documents))) or not all(map(math.isfinite, found.values())):
        raise ValueError("the engine's answer has not one score for each document")
    best = sorted(found, key=lambda index: (-found[index], index))[: ranking.top_n]
    body: dict[str, object] = {
        "id": id,
        "object": "list",
        "model": scores.model or ranking.model,
        "results": [_result(ranking, index, found[index]) for index in best],
    }
    if scores.usage is not None:
        body["usage"] = {name: scores.usage[name] for name in ("prompt_tokens", "total_tokens") if name in scores.usage}
    body["meta"] = {
        "api_version": {"version": str(ranking.version)},
        "billed_units": {"search_units": -(-len(ranking.documents) // UNIT_DOCUMENTS)},
    }
    return msgspec.json.encode(body)


def _result(ranking: Ranking, index: int, score: float) -> dict[str, object]:
    result: dict[str, object] = {"index": index, "relevance_score": score}
    if ranking.returns_documents:
        result["document"] = {"text": ranking.documents[index]}
    return result


def _text(given: str | dict[str, Any], fields: Sequence[str] | None, place: str) -> str:
    """The text of a query or a document: a string, Jina's and Cohere's `{"text": …}`, or the fields that Cohere's
    `rank_fields` name, a line each."""
    if isinstance(given, str):
        return given
    names = fields or ("text",)
    if any(not isinstance(given.get(name, ""), str) for name in names):
        raise BadRequestError(f"Invalid '{place}': its text must be a string.", param=place, code="invalid_type")
    lines = [(name, str(given[name])) for name in names if name in given]
    if not lines:
        what = "an image" if "image" in given else f"none of {', '.join(names)}"
        raise BadRequestError(
            f"Invalid '{place}': it has {what}. Only texts can be ranked: send a string or an object with 'text'.",
            param=place,
            code="unsupported_document",
        )
    if fields is None:
        return lines[0][1]
    return "\n".join(f"{name}: {text}" for name, text in lines)
