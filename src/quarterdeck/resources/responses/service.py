"""Creates responses: a chat completion of any engine, its events, and what is stored of both.

Each engine call is a request of its own in limits, budgets, cache and ledger, as any chat completion; its record names
the response as its parent. A response that is stored when its gateway dies counts as interrupted once its lease is
over (`run` renews the leases of streams).
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

import msgspec

from quarterdeck import ids
from quarterdeck.accounting.principal import Principal
from quarterdeck.errors import BadRequestError, NotFoundError
from quarterdeck.inference.cache.replay import Replay
from quarterdeck.inference.call import Head, Operation, Reply
from quarterdeck.inference.metering.caller_trace import session_of, user_of
from quarterdeck.net.tasks import Spawn
from quarterdeck.protocol import sse
from quarterdeck.resources.responses.chat_reader import Collected
from quarterdeck.resources.responses.event_mapper import EventMapper
from quarterdeck.resources.responses.execution import Execution
from quarterdeck.resources.responses.items import Item, is_id, read_items
from quarterdeck.resources.responses.objects import interrupted, new_response
from quarterdeck.resources.responses.requests import ResponseRequest, read_request, read_token_count
from quarterdeck.resources.responses.stream import ResponseStream
from quarterdeck.resources.responses.tool_loop.approvals import approved
from quarterdeck.resources.responses.tool_loop.sessions import NoToolSessions, OpensTools, continued_trace
from quarterdeck.resources.responses.translation import chat_members, chat_messages
from quarterdeck.resources.responses.truncation import MAX_ROUNDS, without_oldest
from quarterdeck.store.conversations import ConversationStore, no_such_conversation
from quarterdeck.store.database import DatabaseUnavailableError
from quarterdeck.store.ownership import Origin, Owner, storable
from quarterdeck.store.responses import NewResponse, ResponseStore, no_such_previous_response

log = logging.getLogger(__name__)

LEASE_SECONDS = 45.0
"""How long a stream's response is taken for alive without a sign of its gateway."""
RENEW_SECONDS = 10.0
SAVE_ATTEMPTS = 30
"""A second apart: a response that has ended while the database was away is stored when it is back soon."""
SAVE_RETRY_SECONDS = 1.0

_OF_BODY = (b"content-type", b"cache-control", b"x-accel-buffering")
_RENAMED = {
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


class Responses:
    """`is_stopping`: this process is shutting down, so a stream that is closed was not closed by its client."""

    def __init__(
        self,
        pipeline: Pipeline,
        store: ResponseStore,
        conversations: ConversationStore,
        spawn: Spawn,
        *,
        tools: OpensTools | None = None,
        is_stopping: Callable[[], bool] = lambda: False,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._pipeline = pipeline
        self._store = store
        self._conversations = conversations
        self._tools = tools or NoToolSessions()
        self._spawn = spawn
        self._is_stopping = is_stopping
        self._wall = wall
        self._new_request_id = ids.RequestIds().next
        self._open: set[str] = set()
        """Stored responses whose streams run here."""

    async def create(self, head: Head, body: bytes) -> Reply:
        """Answer a request to create a response. Raises APIError until the answer begins."""
        request, engine = read_request(body)
        response_id = ids.object_id("resp")
        head = msgspec.structs.replace(head, parent=response_id)
        shown = new_response(request, response_id, head.started, _decoded(engine))
        owner = owner_of(head.principal)
        items, context = await self._items(request, owner)
        if request.store is not False and not context:
            await self._store.check()
        history = [*context, *items]
        _check_input(request, history)
        mapper = EventMapper(shown, ids.object_id, shows_logprobs=request.shows_logprobs)
        call = partial(self._call, head, request)
        calls = approved(history, items)
        tools = await self._tools.open(shown["tools"], request, head, response_id, calls)
        execution = Execution(request, mapper, history, engine, call, self._wall, tools=tools, approved=calls)
        reply = await execution.open()
        new = NewResponse(
            shown, owner, _origin(head, request), head.started, items, shows_logprobs=request.shows_logprobs
        )
        if request.stream and (reply.stream is not None or tools is not None):
            return await self._streamed(reply, execution, mapper, new)
        return await self._whole(reply, execution, mapper, new, is_streaming=bool(request.stream))

    async def count_tokens(self, head: Head, body: bytes) -> Reply:
        """The tokens of an input, counted by the model's tokenizer. Raises APIError."""
        request = read_token_count(body)
        if not request.model:
            raise _missing("model")
        shown = new_response(request, "", 0.0, {})
        items, context = await self._items(request, owner_of(head.principal))
        _check_input(request, [*context, *items])
        messages = chat_messages(request.instructions, [*context, *items])
        members = chat_members(request, shown, messages, {})
        asked = {name: members[name] for name in ("model", "messages", "tools") if name in members}
        head = msgspec.structs.replace(head, operation=Operation.TOKENIZE)
        try:
            reply = await self._pipeline.call(head, msgspec.json.encode(asked))
        except BadRequestError as error:
            raise _renamed(error) from None
        count = msgspec.json.decode(reply.body, type=dict[str, Any]).get("count")
        answer = {"object": "response.input_tokens", "input_tokens": count}
        return msgspec.structs.replace(reply, body=msgspec.json.encode(answer))

    async def run(self) -> None:
        """Renew the leases of the streams that run here, until cancelled."""
        while True:
            await asyncio.sleep(RENEW_SECONDS)
            if self._open:
                try:
                    await self._store.renew(list(self._open), alive_until=self._wall() + LEASE_SECONDS)
                except DatabaseUnavailableError as error:
                    log.warning("could not renew the leases of %d responses: %s", len(self._open), error)

    async def _items(self, request: ResponseRequest, owner: Owner) -> tuple[list[Item], list[Item]]:
        """The request's items, and those that it continues. Raises APIError."""
        items = read_items(request.input, ids.object_id)
        references = [item["id"] for item in items if item["type"] == "item_reference" and is_id(item["id"])]
        if any(item["type"] == "item_reference" for item in items):
            found = await self._store.items(references, owner)
            for index, item in enumerate(items):
                if item["type"] != "item_reference":
                    continue
                if item["id"] not in found:
                    raise NotFoundError(f"Item with id '{item['id'][:100]}' not found.", param=f"input[{index}].id")
                items[index] = found[item["id"]]
        context: list[Item] = []
        if (previous := request.previous_response_id) is not None:
            if not is_id(previous):
                raise no_such_previous_response(previous)
            context = await self._store.context(previous, owner)
        elif (conversation := request.conversation_id) is not None:
            if not is_id(conversation):
                raise no_such_conversation(conversation)
            context = await self._conversations.items(conversation, owner)
        return items, context

    async def _call(self, head: Head, request: ResponseRequest, turn: int, members: dict[str, Any]) -> Reply:
        """Call an engine. With `truncation: auto`, a conversation that is too long loses its oldest turns."""
        first = head
        for attempt in range(MAX_ROUNDS + 1):
            if attempt or turn:  # each call has a record of its own
                head = msgspec.structs.replace(head, request_id=self._new_request_id())
            if turn:
                trace = continued_trace(first, request.metadata)
                head = msgspec.structs.replace(head, started=self._wall(), trace=trace)
            try:
                return await self._pipeline.call(head, msgspec.json.encode(members))
            except BadRequestError as error:
                if request.truncation != "auto" or error.code != "context_length_exceeded":
                    raise _renamed(error) from None
                shorter = without_oldest(members["messages"])
                if shorter is None or attempt == MAX_ROUNDS:
                    raise _renamed(error) from None
                members["messages"] = shorter
        raise AssertionError("unreachable")

    async def _whole(
        self, reply: Reply, execution: Execution, mapper: EventMapper, new: NewResponse, *, is_streaming: bool
    ) -> Reply:
        events = Collected()
        try:
            events.put(await execution.run(events))
            await self._save(_Ended(new, mapper, has_begun=False))
        except BaseException:
            await execution.aclose()
            raise
        reply = await execution.finish(reply)
        headers = tuple(header for header in reply.headers if header[0] != b"content-type")
        if is_streaming:  # the engine answered with a whole body
            await reply.discard()
            return Reply(200, sse.HEADERS + headers, stream=Replay(events.whole + mapper.last_event()))
        headers = ((b"content-type", b"application/json"), *headers)
        return msgspec.structs.replace(reply, headers=headers, body=msgspec.json.encode(mapper.response))

    async def _streamed(self, reply: Reply, execution: Execution, mapper: EventMapper, new: NewResponse) -> Reply:
        if new.body["store"]:
            try:
                await self._store.begin(new, alive_until=self._wall() + LEASE_SECONDS)
            except BaseException:
                await execution.aclose()
                raise
            self._open.add(new.id)

        ended = _Ended(new, mapper, has_begun=True)

        def interrupt() -> None:
            mapper.stop("cancelled")
            if self._is_stopping():
                mapper.response |= interrupted(mapper.response)

        stream = ResponseStream(
            execution, mapper, save=lambda: self._save(ended), interrupt=interrupt, spawn=self._spawn
        )
        headers = reply.headers
        if reply.stream is None:  # the engine answered with a whole body
            headers = sse.HEADERS + tuple(header for header in headers if header[0] not in _OF_BODY)
        return Reply(reply.status, headers, stream=stream)

    async def _save(self, ended: "_Ended") -> None:
        """Store a response that has ended, and add its items to its conversation. While the database is away, it is
        tried again later: the answer exists, and its client gets it."""
        if await self._try_save(ended):
            self._open.discard(ended.new.id)
        else:
            self._spawn(self._keep_saving(ended))

    async def _keep_saving(self, ended: "_Ended") -> None:
        for _ in range(SAVE_ATTEMPTS):
            await asyncio.sleep(SAVE_RETRY_SECONDS)
            if await self._try_save(ended):
                break
        else:
            log.error("response was not stored: the database is not available", extra={"response": ended.new.id})
        self._open.discard(ended.new.id)

    async def _try_save(self, ended: "_Ended") -> bool:
        """Returns False where the database is away. What has been stored already is not stored again."""
        new, body = ended.new, ended.new.body
        try:
            if body["store"] and not ended.is_stored:
                if not ended.has_begun:
                    await self._store.create(new, ended.mapper.steps)
                elif not await self._store.finish(new, ended.mapper.steps):
                    return True  # deleted meanwhile
                ended.is_stored = True
            if body["conversation"] is not None and body["status"] in ("completed", "incomplete"):
                conversation = body["conversation"]["id"]
                items = [*new.input, *body["output"]]
                await self._conversations.append(conversation, items, new.owner, origin=new.origin)
        except DatabaseUnavailableError as error:
            log.warning("could not store a response, trying again: %s", error, extra={"response": new.id})
            return False
        except (NotFoundError, BadRequestError) as error:  # the conversation was deleted meanwhile, or is full
            log.warning("response was not added to its conversation: %s", error, extra={"response": new.id})
        return True


class _Ended(msgspec.Struct, eq=False):
    """A response that is to be stored when it has ended."""

    new: NewResponse
    mapper: EventMapper
    has_begun: bool
    """Its row is there, in progress."""
    is_stored: bool = False


def owner_of(principal: Principal) -> Owner:
    return Owner(principal.org, principal.team, principal.key, principal.team_remade or 0.0)


def _check_input(request: ResponseRequest, items: Sequence[Item]) -> None:
    if not items and request.prompt is None and not (request.model or "").startswith("prompt:"):
        raise _missing("input")


def _origin(head: Head, request: ResponseRequest) -> Origin:
    """As the record has them."""
    metadata = request.metadata or {}
    user = user_of(metadata) or request.safety_identifier or request.user
    return Origin(head.request_id, storable(user), storable(session_of(metadata)))


def _decoded(engine: Mapping[str, msgspec.Raw]) -> dict[str, Any]:
    return {
        name: msgspec.json.decode(raw)
        for name, raw in engine.items()
        if name in ("presence_penalty", "frequency_penalty")
    }


def _renamed(error: BadRequestError) -> BadRequestError:
    """An error of the chat completion, with the parameter's name of here."""
    if error.param is not None:
        name = error.param.partition("[")[0].partition(".")[0]
        if name in _RENAMED:
            error.param = _RENAMED[name]
    return error


def _missing(param: str) -> BadRequestError:
    return BadRequestError(f"Missing required parameter: '{param}'.", param=param, code="missing_required_parameter")
