"""`/v1/responses/compact`: a long conversation as one item, with which it can be continued.

The model summarizes the conversation; what the user has said is kept as it is. Both are in the item's
`encrypted_content`, in whose place the model later reads them.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from quarterdeck import ids
from quarterdeck.errors import BadRequestError, EngineError
from quarterdeck.inference.call import Head, Reply
from quarterdeck.protocol import requests
from quarterdeck.protocol.requests import BOM
from quarterdeck.resources.responses.deltas import decode_chunk, steps_of, usage_of
from quarterdeck.resources.responses.engine_calls import Pipeline, call_engine
from quarterdeck.resources.responses.history import History
from quarterdeck.resources.responses.items import Item
from quarterdeck.resources.responses.objects import usage_object
from quarterdeck.resources.responses.requests import ResponseRequest, check, unknown
from quarterdeck.resources.responses.sealed import Sealed
from quarterdeck.resources.responses.translation import chat_messages
from quarterdeck.store.ownership import Owner

MEMBERS = frozenset(
    {
        *("model", "input", "instructions", "previous_response_id", "prompt_cache_key", "prompt_cache_retention"),
        "service_tier",
    }
)
"""Members of the request that are served."""
TASK = (
    "Summarize the conversation above, so that it can be continued from your summary alone. Keep facts, names, numbers,"
    " decisions, open questions and results of tools. Write the summary only."
)
SUMMARY = "Summary of the conversation so far:\n\n"


class Compaction:
    def __init__(
        self, pipeline: Pipeline, history: History, sealed: Sealed, *, wall: Callable[[], float] = time.time
    ) -> None:
        self._pipeline = pipeline
        self._history = history
        self._sealed = sealed
        self._wall = wall
        self._new_request_id = ids.RequestIds().next

    async def compact(self, head: Head, owner: Owner, body: bytes) -> Reply:
        """Raises APIError."""
        request = read_compaction(body)
        response_id = ids.object_id("resp")
        context, own = await self._history.context(request, owner), await self._history.items(request, owner)
        items = await self._history.opened([*context, *own], owner.org)
        if not items:
            raise BadRequestError("There is nothing to compact: 'input' is empty.", param="input", code="invalid_value")
        read = await self._history.full(context, own, owner)
        messages = [*chat_messages(request.instructions, read), {"role": "user", "content": TASK}]
        members: dict[str, Any] = {"model": request.model, "messages": messages}
        for name in ("prompt_cache_key", "service_tier"):
            if (value := getattr(request, name)) not in (None, "auto", "default"):
                members[name] = value
        head = msgspec.structs.replace(head, parent=response_id)
        # A conversation that is compacted because it is too long loses its oldest turns rather than be refused.
        shortened = msgspec.structs.replace(request, truncation="auto")

        def request_id(attempt: int) -> str:
            return self._new_request_id() if attempt else head.request_id

        reply = await call_engine(self._pipeline, head, shortened, members, request_id)
        try:
            summary, usage = _read(reply.body)
            content = await self._sealed.seal(owner.org, compacted(items, summary))
        except BaseException:
            await reply.discard()
            raise
        made = {
            "id": response_id,
            "object": "response.compaction",
            "created_at": int(self._wall()),
            "output": [{"id": ids.object_id("cmp"), "type": "compaction", "encrypted_content": content}],
            "usage": usage,
        }
        headers = tuple(header for header in reply.headers if header[0] != b"content-type")
        headers = ((b"content-type", b"application/json"), *headers)
        return msgspec.structs.replace(reply, headers=headers, body=msgspec.json.encode(made))


def read_compaction(body: bytes) -> ResponseRequest:
    """Raises BadRequestError naming the parameter."""
    body = body.removeprefix(BOM)
    request: ResponseRequest = requests.decode(body, ResponseRequest)
    for name, raw in requests.members(body).items():
        if name not in MEMBERS and bytes(raw) != b"null":
            raise unknown(name)
    check(request)
    if not request.model:
        raise BadRequestError("Missing required parameter: 'model'.", param="model", code="missing_required_parameter")
    return request


def compacted(items: Sequence[Item], summary: str) -> list[Item]:
    """What the model reads in place of these items: what the user has said, and the summary."""
    said = [item for item in items if item["type"] == "message" and item["role"] == "user"]
    part = {"type": "output_text", "text": SUMMARY + summary, "annotations": [], "logprobs": []}
    message = {"id": ids.object_id("msg"), "type": "message", "status": "completed", "role": "assistant"}
    return [*said, {**message, "content": [part]}]


def _read(body: bytes) -> tuple[str, dict[str, Any] | None]:
    try:
        chunk = decode_chunk(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise EngineError("The engine's answer is not a chat completion.") from None
    summary = "".join(step[1] for step in steps_of(chunk) if step[0] == "text").strip()
    if not summary:
        raise EngineError("The engine has made no summary.")
    return summary, usage_object(usage_of(chunk))
