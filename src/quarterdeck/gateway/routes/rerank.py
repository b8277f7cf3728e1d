"""`/v1/rerank`, `/v2/rerank` (Cohere, Jina) and `/rerank` (vLLM): documents by relevance to a query.

Served by vLLM's scores: the pipeline sees a `score` request, with its limits, cache and record.
"""

import msgspec

from quarterdeck.errors import EngineError
from quarterdeck.gateway.http.registry import Route
from quarterdeck.gateway.http.request_head import RequestHead
from quarterdeck.gateway.routes.inference import Pipeline, pipeline_head
from quarterdeck.inference.call import Operation, Reply
from quarterdeck.protocol.rerank import ranked_answer, read_ranking

PATHS = {"/rerank": 1, "/v1/rerank": 1, "/v2/rerank": 2}
"""With the version of Cohere's API that each has."""


def routes(pipeline: Pipeline) -> list[Route]:
    return [_route(pipeline, path, version) for path, version in PATHS.items()]


def _route(pipeline: Pipeline, path: str, version: int) -> Route:
    async def rerank(head: RequestHead, body: bytes) -> Reply:
        ranking = read_ranking(body, version=version)
        reply = await pipeline.call(pipeline_head(head, Operation.SCORE), ranking.score_body)
        try:
            reply.body = ranked_answer(ranking, reply.body, "rerank-" + head.request_id.removeprefix("req_"))
        except (ValueError, msgspec.DecodeError) as error:
            if reply.on_end is not None:
                reply.on_end()
            raise EngineError("The engine's scores can't be used.") from error
        return reply

    return Route.buffered(path, rerank)
