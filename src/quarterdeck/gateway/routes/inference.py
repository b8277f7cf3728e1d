"""The model routes: each operation of the inference pipeline, for the request lifecycle's registry."""

from collections.abc import Awaitable, Callable
from typing import Protocol

import msgspec

from quarterdeck.gateway.http.registry import Route
from quarterdeck.gateway.http.request_head import RequestHead
from quarterdeck.inference.call import MEDIA, Head, Operation, Reply
from quarterdeck.protocol.requests import BOM, with_model
from quarterdeck.protocol.trace_context import read_trace_context
from quarterdeck.resources.chat_completions.input_files import WITH_FILES
from quarterdeck.resources.chat_completions.service import WANTED

NAMING = ("/openai/deployments/{name:path}", "/v1/engines/{name:path}")
"""Paths that name the model: Azure's, whose query (`api-version`) is ignored, and OpenAI's of before 2022."""


class Pipeline(Protocol):
    """What is needed of `inference.pipeline.Pipeline`."""

    async def call(self, head: Head, body: bytes) -> Reply: ...


Special = Callable[[Operation, bytes], Pipeline | None]


def routes(pipeline: Pipeline, stored: Pipeline, with_files: Pipeline) -> list[Route]:
    """`stored` is the pipeline of chats that may have to be stored, `with_files` of those that may have files."""
    azure = (Operation.CHAT, Operation.COMPLETIONS, Operation.EMBEDDINGS)

    def special(operation: Operation, body: bytes) -> Pipeline | None:
        """The pipeline of a body that may be more than a request to a model."""
        if operation is not Operation.CHAT:
            return None
        return stored if WANTED in body else with_files if WITH_FILES in body else None

    return [
        *(_route(pipeline, special, operation) for operation in Operation if operation not in MEDIA),
        *(_naming_route(pipeline, special, operation, prefix) for prefix in NAMING for operation in azure),
    ]


def _route(pipeline: Pipeline, special: Special, operation: Operation) -> Route:
    is_chat = operation is Operation.CHAT

    # Not a coroutine function: the pipeline's own coroutine is awaited directly.
    def call(head: RequestHead, body: bytes) -> Awaitable[Reply]:
        if is_chat and (found := special(operation, body)) is not None:
            return found.call(pipeline_head(head, operation), body)
        if head.traceparent is not None or head.job is not None:
            return pipeline.call(pipeline_head(head, operation), body)
        return pipeline.call(
            Head(head.request_id, operation, head.principal, head.started, head.forwarded, head.cache_control), body
        )

    return Route.buffered(operation.path, call, takes_media=is_chat)


def _naming_route(pipeline: Pipeline, special: Special, operation: Operation, prefix: str) -> Route:
    async def call(head: RequestHead, body: bytes) -> Reply:
        name = (head.parameters or {})["name"]
        chosen = special(operation, body) or pipeline
        return await chosen.call(pipeline_head(head, operation), with_model(body.removeprefix(BOM), name))

    path = prefix + operation.path.removeprefix("/v1")
    return Route.buffered(path, call, takes_media=operation is Operation.CHAT)


def pipeline_head(head: RequestHead, operation: Operation) -> Head:
    """The pipeline's head of a request."""
    trace = read_trace_context(head.traceparent, head.tracestate) if head.traceparent is not None else None
    made = Head(head.request_id, operation, head.principal, head.started, head.forwarded, head.cache_control, trace)
    is_of_batch = head.job is not None and head.principal.priority < 0
    return msgspec.structs.replace(made, repeats=_always) if is_of_batch else made


def _always() -> bool:
    """A batch sends a request until it has its result."""
    return True
