"""Embeds texts for the semantic cache with one of the platform's own models.

Requests go directly to an endpoint, without an API key: they are not billed and leave no record.
"""

import asyncio

import msgspec

from quarterdeck.errors import EngineError, EngineUnavailableError
from quarterdeck.inference.call import Operation
from quarterdeck.inference.endpoints.endpoint import Endpoints
from quarterdeck.inference.engine.client import EngineClient
from quarterdeck.inference.preparation import adapt_body
from quarterdeck.inference.routing.policies import pick


class _Embedding(msgspec.Struct):
    embedding: list[float]
    index: int = 0


class _EmbeddingResponse(msgspec.Struct):
    data: list[_Embedding]


class Embedder:
    """Embeds texts on the least busy ready endpoint of a model."""

    def __init__(self, endpoints: Endpoints, engines: EngineClient) -> None:
        self._endpoints = endpoints
        self._engines = engines

    async def __call__(self, model: str, texts: list[str]) -> list[list[float]]:
        """The vectors of the texts, in order. Raises APIError."""
        endpoint = pick(self._endpoints.serving(model), asyncio.get_running_loop().time())
        if endpoint is None:
            raise EngineUnavailableError(f"No endpoint of the model '{model}' is ready.", code="model_not_ready")
        body = msgspec.json.encode({"model": model, "input": texts, "encoding_format": "float"})
        answer = await self._engines.open(endpoint, Operation.EMBEDDINGS, adapt_body(body, endpoint))
        try:
            data = msgspec.json.decode(answer.body, type=_EmbeddingResponse).data
        except msgspec.DecodeError as error:
            raise EngineError(f"The engine's answer for the model '{model}' has no embeddings.") from error
        return [found.embedding for found in sorted(data, key=lambda found: found.index)]
