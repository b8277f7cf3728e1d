"""The model routes: each operation of the inference pipeline, for the request lifecycle's registry."""

from collections.abc import Awaitable
from typing import Protocol

from quarterdeck.gateway.http.registry import Route
from quarterdeck.gateway.http.request_head import RequestHead
from quarterdeck.inference.call import Head, Operation, Reply


class Pipeline(Protocol):
    """What is needed of `inference.pipeline.Pipeline`."""

    async def call(self, head: Head, body: bytes) -> Reply: ...


def routes(pipeline: Pipeline) -> list[Route]:
    return [_route(pipeline, operation) for operation in Operation]


def _route(pipeline: Pipeline, operation: Operation) -> Route:
    # Not a coroutine function: the pipeline's own coroutine is awaited directly.
    def call(head: RequestHead, body: bytes) -> Awaitable[Reply]:
        return pipeline.call(
            Head(head.request_id, operation, head.principal, head.started, head.forwarded, head.cache_control), body
        )

    return Route.buffered(operation.path, call)
