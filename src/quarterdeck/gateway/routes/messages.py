"""Anthropic's Messages API: `/v1/messages` and `/v1/messages/count_tokens`, served as chat completions.

Clients that speak it (Anthropic's SDKs, coding assistants) get any model of this gateway, with its keys, limits,
budgets, cache and records: the pipeline sees a chat. `protocol.anthropic` converts both ways.
"""

from collections.abc import Callable

import msgspec

from quarterdeck.errors import EngineError
from quarterdeck.gateway.http.registry import ErrorFormat, Route
from quarterdeck.gateway.http.request_head import RequestHead
from quarterdeck.gateway.routes.inference import Pipeline, pipeline_head
from quarterdeck.inference.call import Operation, Reply
from quarterdeck.inference.streaming.mapped import MappedStream
from quarterdeck.protocol import requests
from quarterdeck.protocol.anthropic import answers, conversion, errors
from quarterdeck.protocol.anthropic.events import MessageEvents
from quarterdeck.protocol.anthropic.requests import MessagesRequest, Prompt

ERRORS = ErrorFormat(errors.envelope, errors.error_event)


class Tokenized(msgspec.Struct, frozen=True):
    """An engine's answer to `/tokenize`."""

    count: int


def routes(pipeline: Pipeline) -> list[Route]:
    async def create(head: RequestHead, body: bytes) -> Reply:
        request: MessagesRequest = requests.decode(body.removeprefix(requests.BOM), MessagesRequest)
        reply = await pipeline.call(pipeline_head(head, Operation.CHAT), conversion.chat_body(request))
        thinks = request.thinks
        if reply.stream is not None:
            reply.stream = MappedStream(reply.stream, MessageEvents(shows_thoughts=thinks))
        else:
            _rewrite(reply, lambda chat: answers.message(chat, shows_thoughts=thinks))
        return _named(reply, head)

    async def count_tokens(head: RequestHead, body: bytes) -> Reply:
        request: Prompt = requests.decode(body.removeprefix(requests.BOM), Prompt)
        reply = await pipeline.call(pipeline_head(head, Operation.TOKENIZE), conversion.tokenize_body(request))
        _rewrite(reply, _input_tokens)
        return _named(reply, head)

    return [
        Route.buffered("/v1/messages", create, takes_media=True, errors=ERRORS),
        Route.buffered("/v1/messages/count_tokens", count_tokens, takes_media=True, errors=ERRORS),
    ]


def _rewrite(reply: Reply, convert: Callable[[bytes], bytes]) -> None:
    """Replace the body. Raises EngineError where it has another form than the engine's API."""
    try:
        reply.body = convert(reply.body)
    except (msgspec.DecodeError, RecursionError) as error:
        if reply.on_end is not None:
            reply.on_end()
        raise EngineError("The engine's answer has an unexpected form.") from error


def _input_tokens(tokenized: bytes) -> bytes:
    return msgspec.json.encode({"input_tokens": msgspec.json.decode(tokenized, type=Tokenized).count})


def _named(reply: Reply, head: RequestHead) -> Reply:
    """With the header from which Anthropic's SDKs read the request's id."""
    reply.headers += ((b"request-id", head.request_id.encode()),)
    return reply
