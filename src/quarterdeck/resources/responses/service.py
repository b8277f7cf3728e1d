"""Creates responses: a chat completion of any engine, its events, and what is stored of both.

Each engine call is a request of its own in limits, budgets, cache and ledger, as any chat completion; its record names
the response as its parent. A response that is stored when its gateway dies counts as interrupted once its lease is
over (`run` renews the leases of streams).
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import msgspec

from quarterdeck import ids
from quarterdeck.accounting.principal import Principal
from quarterdeck.errors import BadRequestError, ConflictError, NotFoundError
from quarterdeck.inference.cache.replay import Replay
from quarterdeck.inference.call import Head, Operation, Reply
from quarterdeck.inference.metering.caller_trace import session_of, user_of
from quarterdeck.net.tasks import Spawn
from quarterdeck.protocol import sse
from quarterdeck.resources.responses.background import no_background_without_store
from quarterdeck.resources.responses.background_steps import ended_by_others
from quarterdeck.resources.responses.chat_reader import Collected
from quarterdeck.resources.responses.engine_calls import Pipeline, call_engine, call_request_id, renamed
from quarterdeck.resources.responses.event_mapper import EventMapper
from quarterdeck.resources.responses.execution import Execution
from quarterdeck.resources.responses.following import Following, Pace
from quarterdeck.resources.responses.history import History, reads_what_is_stored
from quarterdeck.resources.responses.items import Item, is_id
from quarterdeck.resources.responses.objects import Response, interrupted, new_response
from quarterdeck.resources.responses.requests import ResponseRequest, read_request, read_token_count
from quarterdeck.resources.responses.stream import ResponseStream
from quarterdeck.resources.responses.tool_loop.approvals import approved
from quarterdeck.resources.responses.tool_loop.sessions import NoToolSessions, OpensTools, continued_trace
from quarterdeck.resources.responses.translation import chat_members, chat_messages
from quarterdeck.store.background_responses import BackgroundStore, not_background
from quarterdeck.store.conversation_locks import ConversationLocks
from quarterdeck.store.conversations import ConversationStore, no_such_conversation
from quarterdeck.store.database import DatabaseUnavailableError
from quarterdeck.store.ownership import Origin, Owner, storable
from quarterdeck.store.responses import NewResponse, ResponseStore

log = logging.getLogger(__name__)

LEASE_SECONDS = 45.0
"""How long a stream's response is taken for alive without a sign of its gateway."""
RENEW_SECONDS = 10.0
SAVE_ATTEMPTS = 30
"""A second apart: a response that has ended while the database was away is stored when it is back soon."""
SAVE_RETRY_SECONDS = 1.0

_OF_BODY = (b"content-type", b"cache-control", b"x-accel-buffering")


async def _as_it_is(principal: Principal) -> Principal:
    return principal


class Responses:
    """`is_stopping`: this process is shutting down, so a stream that is closed was not closed by its client."""

    def __init__(
        self,
        pipeline: Pipeline,
        store: ResponseStore,
        conversations: ConversationStore,
        spawn: Spawn,
        *,
        history: History,
        locks: ConversationLocks,
        background: BackgroundStore,
        tools: OpensTools | None = None,
        is_stopping: Callable[[], bool] = lambda: False,
        stop: Callable[[str], None] = lambda response: None,
        confirm: Callable[[Principal], Awaitable[Principal]] = _as_it_is,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """`stop` stops the execution of a background response where it runs here. `confirm` reads a key as it is now,
        before what its team has stored is read. Raises AuthenticationError."""
        self._pipeline = pipeline
        self._store = store
        self._conversations = conversations
        self._history = history
        self._locks = locks
        self._background = background
        self.stop = stop
        self._confirm = confirm
        self._tools = tools or NoToolSessions()
        self._spawn = spawn
        self._is_stopping = is_stopping
        self._wall = wall
        self._new_request_id = ids.RequestIds().next
        self._pace = Pace()
        self._open: set[str] = set()
        """Stored responses whose streams run here."""
        self._locked: dict[str, str] = {}
        """Responses that run here, by the conversation that they hold."""

    async def create(self, head: Head, body: bytes) -> Reply:
        """Answer a request to create a response. Raises APIError until the answer begins."""
        request, engine = read_request(body)
        response_id = ids.object_id("resp")
        principal = await self._confirmed(request, head.principal)
        head = msgspec.structs.replace(head, parent=response_id, principal=principal)
        shown = new_response(request, response_id, head.started, _decoded(engine))
        owner = owner_of(head.principal)
        if request.background:
            return await self._enqueue(head, request, shown, owner, body)
        items = await self._history.items(request, owner)
        try:
            await self._lock(request, response_id, owner)
            context = await self._history.context(request, owner)
            if request.store is not False and not context:
                await self._store.check()
            history = await self._history.full(context, items, owner)
            _check_input(request, history)
            seal = await self._history.reasoning_sealer(request, owner.org)
            mapper = EventMapper(
                shown,
                ids.object_id,
                shows_logprobs=request.shows_logprobs,
                seal=seal,
                obfuscates=request.is_obfuscated,
            )
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
        except BaseException:  # refused, failed, or its client is gone: the conversation is free again
            if (conversation := request.conversation_id) is not None and is_id(conversation):
                self._spawn(self._unlock(conversation, response_id))
            raise

    async def cancel(self, response_id: str, owner: Owner) -> Response:
        """Cancel a background response; one that has ended stays as it is. Raises NotFoundError, and BadRequestError
        for one that is not in the background."""
        stored = await self._store.retrieve(response_id, owner)
        if not stored.body["background"]:
            raise not_background()
        while (found := await self._background.read_open(response_id, owner.org)) is not None:
            body = ended_by_others(found.body, found.steps, "cancelled", shows_logprobs=found.shows_logprobs)
            if await self._background.end(response_id, owner.org, found, body, now=self._wall()):
                break
        self.stop(response_id)
        return (await self._store.retrieve(response_id, owner)).body

    def follow(self, response: Response, owner: Owner, after: int, *, obfuscates: bool = False) -> Reply:
        """The events of a background response, those after number `after`."""
        stream = Following(self._background, self._store, response, owner, after, self._pace, obfuscates=obfuscates)
        return Reply(200, sse.HEADERS, stream=stream)

    async def _enqueue(self, head: Head, request: ResponseRequest, shown: Response, owner: Owner, body: bytes) -> Reply:
        """Queue a background response. It is answered at once: with its object, or its events as they come."""
        if request.store is False:
            raise no_background_without_store()
        items = await self._history.items(request, owner)
        context = await self._history.context(request, owner)
        _check_input(request, await self._history.full(context, items, owner))
        shown |= {"status": "queued", "background": True}
        new = NewResponse(
            shown, owner, _origin(head, request), head.started, items, shows_logprobs=request.shows_logprobs
        )
        await self._background.enqueue(new, body)
        if request.stream:
            return self.follow(shown, owner, -1, obfuscates=request.is_obfuscated)
        return Reply(200, ((b"content-type", b"application/json"),), msgspec.json.encode(shown))

    async def count_tokens(self, head: Head, body: bytes) -> Reply:
        """The tokens of an input, counted by the model's tokenizer. Raises APIError."""
        request = read_token_count(body)
        if not request.model:
            raise _missing("model")
        shown = new_response(request, "", 0.0, {})
        owner = owner_of(await self._confirmed(request, head.principal))
        items, context = await self._history.items(request, owner), await self._history.context(request, owner)
        history = await self._history.full(context, items, owner)
        _check_input(request, history)
        messages = chat_messages(request.instructions, history)
        members = chat_members(request, shown, messages, {})
        asked = {name: members[name] for name in ("model", "messages", "tools") if name in members}
        head = msgspec.structs.replace(head, operation=Operation.TOKENIZE)
        try:
            reply = await self._pipeline.call(head, msgspec.json.encode(asked))
        except BadRequestError as error:
            raise renamed(error) from None
        count = msgspec.json.decode(reply.body, type=dict[str, Any]).get("count")
        answer = {"object": "response.input_tokens", "input_tokens": count}
        return msgspec.structs.replace(reply, body=msgspec.json.encode(answer))

    async def run(self) -> None:
        """Renew the leases of the streams that run here, until cancelled."""
        while True:
            await asyncio.sleep(RENEW_SECONDS)
            try:
                if self._open:
                    await self._store.renew(list(self._open), alive_until=self._wall() + LEASE_SECONDS)
                if self._locked:
                    await self._locks.renew(dict(self._locked), seconds=LEASE_SECONDS)
            except DatabaseUnavailableError as error:
                log.warning("could not renew the leases of %d responses: %s", len(self._open), error)

    async def _confirmed(self, request: ResponseRequest, principal: Principal) -> Principal:
        """The key as it is now, for a request that reads what is stored: it may have been moved to another team."""
        if not (request.background or reads_what_is_stored(request)):
            return principal
        return replace(await self._confirm(principal), priority=principal.priority)

    async def _call(self, head: Head, request: ResponseRequest, turn: int, members: dict[str, Any]) -> Reply:
        def request_id(attempt: int) -> str:  # each call has a record of its own
            return call_request_id(head, turn, attempt, self._new_request_id)

        if turn:
            trace = continued_trace(head, request.metadata)
            head = msgspec.structs.replace(head, started=self._wall(), trace=trace)
        return await call_engine(self._pipeline, head, request, members, request_id)

    async def _lock(self, request: ResponseRequest, response_id: str, owner: Owner) -> None:
        """Lock the conversation that the response is made in. Raises APIError."""
        if (conversation := request.conversation_id) is not None:
            if not is_id(conversation):
                raise no_such_conversation(conversation)
            await self._locks.lock(conversation, owner, response_id, seconds=LEASE_SECONDS)
            self._locked[conversation] = response_id

    async def _unlock(self, conversation: str | None, response_id: str) -> None:
        """The lease ends by itself where the database is away."""
        if conversation is None:
            return
        if self._locked.get(conversation) == response_id:
            del self._locked[conversation]
        try:
            await self._locks.unlock(conversation, response_id)
        except DatabaseUnavailableError as error:
            log.warning("could not unlock a conversation, its lease will end: %s", error)

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
        conversation = None if body["conversation"] is None else body["conversation"]["id"]
        try:
            if body["store"] and not ended.is_stored:
                if not ended.has_begun:
                    await self._store.create(new, ended.mapper.steps)
                elif not await self._store.finish(new, ended.mapper.steps):
                    await self._unlock(conversation, new.id)
                    return True  # deleted meanwhile
                ended.is_stored = True
            if conversation is not None and body["status"] in ("completed", "incomplete"):
                items = [*new.input, *body["output"]]
                await self._conversations.append(conversation, items, new.owner, origin=new.origin, by=new.id)
                if self._locked.get(conversation) == new.id:
                    del self._locked[conversation]
                return True
        except DatabaseUnavailableError as error:
            log.warning("could not store a response, trying again: %s", error, extra={"response": new.id})
            return False
        except (NotFoundError, BadRequestError, ConflictError) as error:  # deleted meanwhile, or full
            log.warning("response was not added to its conversation: %s", error, extra={"response": new.id})
        await self._unlock(conversation, new.id)
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


def _missing(param: str) -> BadRequestError:
    return BadRequestError(f"Missing required parameter: '{param}'.", param=param, code="missing_required_parameter")
