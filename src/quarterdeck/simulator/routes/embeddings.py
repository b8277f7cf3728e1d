"""POST /v1/embeddings, /v1/score, /rerank and /classify: vLLM's pooling models."""

import base64
import struct
import time
from typing import Any

from msgspec.json import encode

from quarterdeck.simulator.client_connection import ClientConnection
from quarterdeck.simulator.engine import Engine
from quarterdeck.simulator.errors import invalid_request
from quarterdeck.simulator.faults import Faults
from quarterdeck.simulator.model.tokenizer import split
from quarterdeck.simulator.model.vectors import cosine, embed, violence
from quarterdeck.simulator.protocol.prepared_request import prompts_of
from quarterdeck.simulator.protocol.requests import EmbeddingRequest, RerankRequest, ScoreRequest
from quarterdeck.simulator.routes.delivery import send
from quarterdeck.simulator.routes.execution import prefill, receive, response_id

MAX_DIMENSIONS = 65536


async def create_embedding(connection: ClientConnection, engine: Engine, faults: Faults) -> None:
    request = await receive(connection, engine, EmbeddingRequest)
    hosted = engine.hosted_model(request.model, "embed")
    if request.encoding_format not in ("float", "base64"):
        raise invalid_request(f"Unsupported encoding format {request.encoding_format}", "encoding_format")
    dimensions = engine.config.default_embedding_dimensions if request.dimensions is None else request.dimensions
    if not 1 <= dimensions <= MAX_DIMENSIONS:
        raise invalid_request(f"dimensions must be between 1 and {MAX_DIMENSIONS}, got {dimensions}.", "dimensions")
    texts, prompts = prompts_of(request.input)
    if request.truncate_prompt_tokens is not None:
        prompts = _truncated(prompts, request.truncate_prompt_tokens, engine)
        texts = ["".join(prompt) for prompt in prompts]
    usage = await prefill(connection, engine, prompts, faults)
    data = []
    for index, text in enumerate(texts):
        vector = embed(text, dimensions)
        value: Any = vector
        if request.encoding_format == "base64":
            value = base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
        data.append({"index": index, "object": "embedding", "embedding": value})
    body = {"id": response_id(connection, "embd"), "object": "list", "created": int(time.time())}
    body |= {"model": hosted.name, "data": data} | usage
    await send(connection, engine, encode(body), faults)


async def create_score(connection: ClientConnection, engine: Engine, faults: Faults) -> None:
    request = await receive(connection, engine, ScoreRequest)
    hosted = engine.hosted_model(request.model, "embed")
    first = next((each for each in (request.text_1, request.queries, request.data_1) if each is not None), None)
    second = next((each for each in (request.text_2, request.documents, request.data_2) if each is not None), None)
    left, right = _texts_of(first), _texts_of(second)
    if not left or not right:
        raise invalid_request(
            "queries and documents (or text_1 and text_2) must be a string or a list of strings", "queries"
        )
    if len(left) not in (1, len(right)):
        raise invalid_request("Input lengths must be either 1:1, 1:N or N:N")
    pairs = list(zip(left * len(right) if len(left) == 1 else left, right, strict=True))
    scores, usage = await _scored(connection, engine, faults, pairs, request.truncate_prompt_tokens)
    data = [{"index": index, "object": "score", "score": score} for index, score in enumerate(scores)]
    body = {"id": response_id(connection, "score"), "object": "list", "created": int(time.time())}
    body |= {"model": hosted.name, "data": data} | usage
    await send(connection, engine, encode(body), faults)


async def create_rerank(connection: ClientConnection, engine: Engine, faults: Faults) -> None:
    request = await receive(connection, engine, RerankRequest)
    hosted = engine.hosted_model(request.model, "embed")
    if not request.documents:
        raise invalid_request("documents must not be empty", "documents")
    pairs = [(request.query, document) for document in request.documents]
    scores, usage = await _scored(connection, engine, faults, pairs, request.truncate_prompt_tokens)
    best = sorted(range(len(scores)), key=lambda index: -scores[index])[: request.top_n or None]
    results = [
        {"index": index, "document": {"text": request.documents[index]}, "relevance_score": scores[index]}
        for index in best
    ]
    body = {"id": response_id(connection, "rerank"), "model": hosted.name, "results": results} | usage
    await send(connection, engine, encode(body), faults)


async def create_classification(connection: ClientConnection, engine: Engine, faults: Faults) -> None:
    """Two classes: `LABEL_0`, and `LABEL_1` for texts of violence."""
    request = await receive(connection, engine, EmbeddingRequest)
    hosted = engine.hosted_model(request.model, "embed")
    texts, prompts = prompts_of(request.input)
    if request.truncate_prompt_tokens is not None:
        prompts = _truncated(prompts, request.truncate_prompt_tokens, engine)
    usage = await prefill(connection, engine, prompts, faults)
    data = []
    for index, text in enumerate(texts):
        harmful = violence(text)
        label = "LABEL_1" if harmful >= 0.5 else "LABEL_0"
        data.append({"index": index, "label": label, "probs": [1 - harmful, harmful], "num_classes": 2})
    body = {"id": response_id(connection, "classify"), "object": "list", "created": int(time.time())}
    body |= {"model": hosted.name, "data": data} | usage
    await send(connection, engine, encode(body), faults)


async def _scored(
    connection: ClientConnection, engine: Engine, faults: Faults, pairs: list[tuple[str, str]], keep: int | None
) -> tuple[list[float], dict[str, Any]]:
    """The similarity of each pair, and the answer's usage."""
    prompts = [split(one + other) for one, other in pairs]
    if keep is not None:
        prompts = _truncated(prompts, keep, engine)
    usage = await prefill(connection, engine, prompts, faults)
    size = engine.config.default_embedding_dimensions
    return [cosine(embed(one, size), embed(other, size)) for one, other in pairs], usage


def _truncated(prompts: list[list[str]], keep: int, engine: Engine) -> list[list[str]]:
    """Each prompt's first `keep` tokens; a negative number keeps as many as the model reads."""
    return [prompt[: engine.config.max_model_len if keep < 0 else keep] for prompt in prompts]


def _texts_of(value: Any) -> list[str]:
    """Return a string or a list of strings as a list; [] for anything else."""
    if isinstance(value, str):
        return [value]
    return value if isinstance(value, list) and all(isinstance(each, str) for each in value) else []
