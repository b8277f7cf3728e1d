"""Sends the chat completion of a turn, shortened where the model's context is too small and the client agrees."""

from collections.abc import Callable
from typing import Any, Protocol

import msgspec

from quarterdeck import ids
from quarterdeck.errors import BadRequestError
from quarterdeck.inference.call import Head, Reply
from quarterdeck.resources.responses.requests import ResponseRequest
from quarterdeck.resources.responses.truncation import MAX_ROUNDS, without_oldest

RENAMED = {
    "messages": "input",
    "max_completion_tokens": "max_output_tokens",
    "response_format": "text.format",
    "reasoning_effort": "reasoning.effort",
    "logprobs": "top_logprobs",
}
"""Parameters of a chat completion, as the response's request has them."""


class Pipeline(Protocol):
    """What is needed of `inference.pipeline.Pipeline`."""

    async def call(self, head: Head, body: bytes) -> Reply: ...


async def call_engine(
    pipeline: Pipeline,
    head: Head,
    request: ResponseRequest,
    members: dict[str, Any],
    request_id: Callable[[int], str],
    encode: Callable[[dict[str, Any]], bytes] = msgspec.json.encode,
) -> Reply:
    """Call an engine. With `truncation: auto`, a conversation that is too long loses its oldest turns, and each round
    is a request of its own, whose id `request_id` makes. Raises APIError until the answer begins."""
    for attempt in range(MAX_ROUNDS + 1):
        head = msgspec.structs.replace(head, request_id=request_id(attempt))
        try:
            return await pipeline.call(head, encode(members))
        except BadRequestError as error:
            if request.truncation != "auto" or error.code != "context_length_exceeded":
                raise renamed(error) from None
            shorter = without_oldest(members["messages"])
            if shorter is None or attempt == MAX_ROUNDS:
                raise renamed(error) from None
            members["messages"] = shorter
    raise AssertionError("unreachable")


def renamed(error: BadRequestError) -> BadRequestError:
    """An error of the chat completion, with the parameter's name of here."""
    if error.param is not None:
        name = error.param.partition("[")[0].partition(".")[0]
        if name in RENAMED:
            error.param = RENAMED[name]
    return error


def call_request_id(head: Head, turn: int, attempt: int, new: Callable[[], str]) -> str:
    """The request id of a response's engine call: that of the request for the first. A batch's request is made again
    with its id after a kill, and so are its further calls: each is charged once."""
    if not (turn or attempt):
        return head.request_id
    return ids.step_request_id(head.request_id, f"{turn}.{attempt}") if head.repeats is not None else new()
