"""Background responses: queued by one request, executed by another that a worker sends, and independent of both.

The execution is a task of this gateway with a lease on the response (`store.background_responses`): a worker that dies
does not stop it, and a gateway that dies is replaced by the next attempt of the job, which goes on from the stored
steps (`background_steps`). It is stopped where the response is cancelled or deleted, and at the end of the process.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import msgspec

from quarterdeck import ids
from quarterdeck.accounting.principal import Principal
from quarterdeck.errors import APIError, BadRequestError
from quarterdeck.inference.call import Head, Reply, Sink
from quarterdeck.inference.streaming.resume import continuation_body, is_resumable
from quarterdeck.protocol import requests, sse
from quarterdeck.protocol.job_credentials import JobClaims
from quarterdeck.protocol.requests import ChatCompletionRequest
from quarterdeck.resources.responses.background_steps import mapper_of, storable, turn_name, unfinished
from quarterdeck.resources.responses.engine_calls import Pipeline, call_engine
from quarterdeck.resources.responses.event_mapper import EventMapper
from quarterdeck.resources.responses.execution import Execution
from quarterdeck.resources.responses.history import History
from quarterdeck.resources.responses.requests import ResponseRequest, read_request
from quarterdeck.resources.responses.tool_loop.approvals import approved
from quarterdeck.resources.responses.tool_loop.sessions import NoToolSessions, OpensTools
from quarterdeck.settings.prompts import MODEL_PREFIX
from quarterdeck.store.background_responses import BackgroundStore
from quarterdeck.store.background_responses import Execution as Taken
from quarterdeck.store.database import DatabaseUnavailableError

log = logging.getLogger(__name__)

LEASE_SECONDS = 20.0
"""How long a response waits for another gateway after its own has died."""
RENEW_SECONDS = 1.0
"""Between two renewals of all leases, in one statement: how soon another gateway's cancellation stops an engine."""
FLUSH_SECONDS = 0.25
"""Between two writes of the steps of a streamed response."""
SAVE_RETRY_SECONDS = 1.0
WATCH_SECONDS = 5.0
"""Between two signs to the worker that waits."""
LIMITS: tuple[str, ...] = ("max_tokens", "max_completion_tokens")
RETRYABLE = frozenset({408, 409, 429, 500, 502, 503, 504})
"""Statuses of an engine call after which another may succeed."""
FOR_GOOD = frozenset({"insufficient_quota", "budget_exceeded"})
"""Codes with such a status after which it will not."""


@dataclass(frozen=True, slots=True)
class Result:
    """What a worker is told of an execution: done, busy (another gateway may execute it), retry, or wait (there is no
    room for it now, which is no failure)."""

    state: str
    error: str | None = None
    after: float | None = None
    """Seconds."""


class Run:
    """A response that this gateway executes."""

    def __init__(self, taken: Taken, mapper: EventMapper, request: ResponseRequest) -> None:
        self.taken = taken
        self.mapper = mapper
        self.request = request
        self.stored = len(taken.steps)
        """How many of its steps are stored."""
        self.is_continuable = False
        """Whether an engine can continue the text of this turn."""
        self.has_called = False
        """Whether this execution has called an engine."""
        self.task: asyncio.Task[Result] | None = None

    def stop(self) -> None:
        if self.task is not None:
            self.task.cancel()


class Background:
    """Executes background responses.

    `abandon` settles an engine call whose gateway died, by the ids of its organisation and its request. `can_continue`:
    whether all engines that may answer for a model can continue a text. `is_stopping`: this process is shutting down.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        store: BackgroundStore,
        history: History,
        abandon: Callable[[str, str], Awaitable[None]],
        can_continue: Callable[[str, Principal], bool],
        *,
        tools: OpensTools | None = None,
        is_stopping: Callable[[], bool] = lambda: False,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._pipeline = pipeline
        self._store = store
        self._history = history
        self._abandon = abandon
        self._can_continue = can_continue
        self._tools = tools or NoToolSessions()
        self._is_stopping = is_stopping
        self._wall = wall
        self._runs: dict[str, Run] = {}
        """By response."""

    async def execute(self, head: Head, claims: JobClaims, body: bytes) -> Reply:
        """Execute a response, or watch its execution that runs here. The answer ends with its result. Raises
        APIError."""
        response = claims.response or ""
        run = self._runs.get(response)
        if run is None or run.task is None:
            now = self._wall()
            taken = await self._store.take(response, claims.org, alive_until=now + LEASE_SECONDS, now=now)
            if isinstance(taken, str):
                return Reply(200, sse.HEADERS, stream=_Watched(None, Result("done" if taken == "ended" else "busy")))
            run = self._start(head, taken, body)
        return Reply(200, sse.HEADERS, stream=_Watched(run, None, self._is_stopping))

    async def run(self) -> None:
        """Renew the leases of the responses that run here, and stop those that are not ours any more, until cancelled;
        then stop all."""
        try:
            while True:
                await asyncio.sleep(RENEW_SECONDS)
                if self._runs:
                    await self._renew()
        finally:
            running = [run.task for run in self._runs.values() if run.task is not None]
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    def stop(self, response: str) -> None:
        """It was cancelled or deleted: stop it at once where it runs here."""
        if (run := self._runs.get(response)) is not None:
            run.stop()

    async def _renew(self) -> None:
        attempts = {response: run.taken.attempt for response, run in self._runs.items()}
        try:
            held = await self._store.renew(attempts, alive_until=self._wall() + LEASE_SECONDS)
        except DatabaseUnavailableError as error:
            log.warning("could not renew the leases of %d background responses: %s", len(attempts), error)
            return
        for response in attempts:
            run = self._runs.get(response)
            if response not in held and run is not None and run.taken.attempt == attempts[response]:
                run.stop()

    def _start(self, head: Head, taken: Taken, body: bytes) -> Run:
        request, engine = read_request(body)
        mapper = mapper_of(taken.body, shows_logprobs=taken.shows_logprobs)
        mapper.start()
        mapper.feed(list(taken.steps))
        run = Run(taken, mapper, request)
        head = msgspec.structs.replace(head, parent=taken.id, started=self._wall())
        run.task = asyncio.create_task(self._execute(run, head, engine), name=taken.id)
        self._runs[taken.id] = run

        def ended(task: asyncio.Task[Result]) -> None:
            self._runs.pop(taken.id, None)
            if not task.cancelled() and (error := task.exception()) is not None:
                log.error("background response failed", exc_info=error, extra={"response": taken.id})

        run.task.add_done_callback(ended)
        return run

    async def _execute(self, run: Run, head: Head, engine: dict[str, msgspec.Raw]) -> Result:
        taken, mapper = run.taken, run.mapper
        what, text = unfinished(mapper.steps)
        if what == "reasoning":
            mapper.feed([["cut"]])
        if taken.attempt > 1:
            await self._abandon(taken.owner.org, ids.step_request_id(taken.id, turn_name(mapper.steps)))
        flushing = asyncio.create_task(self._flush_all(run))
        try:
            context = await self._history.context(run.request, taken.owner)
            call = partial(self._call, run, head, text)
            history = await self._history.full(context, taken.input, taken.owner)
            calls = approved(history, taken.input)
            tools = await self._tools.open(taken.body["tools"], run.request, head, taken.id, calls)
            execution = Execution(
                run.request,
                mapper,
                history,
                engine,
                call,
                self._wall,
                tools=tools,
                approved=calls,
                on_boundary=partial(self._at_boundary, run),
            )
            await execution.finish(await self._run(execution))
            failure = execution.failure
        except APIError as error:
            failure = error
            if _may_succeed_later(error):
                return await self._put_back(run, error)
            mapper.fail(error)
        except asyncio.CancelledError:
            await self._pause(run)
            raise
        finally:
            flushing.cancel()
            await asyncio.gather(flushing, return_exceptions=True)
        if failure is not None and _may_succeed_later(failure):  # what is stored can be gone on from
            return await self._put_back(run, failure)
        await self._finish(run)
        return Result("done")

    async def _run(self, execution: Execution) -> Reply:
        """Raises APIError."""
        try:
            first = await execution.open()
            await execution.run(_Nowhere())
            return first
        except BaseException:
            await execution.aclose()
            raise

    async def _at_boundary(self, run: Run) -> None:
        """Store a complete turn before the next begins: what its tools have done is not repeated then."""
        try:
            if not await self._flush(run):
                run.stop()
        except DatabaseUnavailableError as error:
            log.warning("could not store a turn: %s", error, extra={"response": run.taken.id})

    async def _call(self, run: Run, head: Head, text: str, turn: int, members: dict[str, Any]) -> Reply:
        """`text`: what the first engine call of this execution is to continue."""
        name = turn_name(run.mapper.steps)

        def encode(members: dict[str, Any]) -> bytes:
            body = msgspec.json.encode(members)
            given, parsed = requests.members(body), requests.decode(body, ChatCompletionRequest)
            run.is_continuable = (
                not _is_prompted(run.request)
                and is_resumable(head.operation, given, parsed, "")
                and self._can_continue(parsed.model, head.principal)
            )
            if not is_continued:
                return body
            tokens = len(text.encode()) // 4
            found = continuation_body(given, parsed, text, tokens)
            if found is None:  # the text is as long as it may be: one more token shows that
                most = {name: tokens + 1 for name in LIMITS if name in given}
                found = continuation_body({**given, **_encoded(most)}, parsed, text, tokens)
            return found or body

        is_continued = bool(text) and turn == run.mapper.turns and not run.has_called
        if is_continued:  # the mapper shows the open message, which has no text yet
            last = members["messages"][-1]
            if last["role"] == "assistant":
                members["messages"] = members["messages"][:-1]
        run.has_called = True
        return await call_engine(
            self._pipeline,
            head,
            run.request,
            members,
            lambda round: ids.step_request_id(run.taken.id, name if not round else f"{name}.{round}"),
            encode,
        )

    async def _flush_all(self, run: Run) -> None:
        """Store the steps as they come, where the response is streamed; else those of complete turns."""
        while True:
            await asyncio.sleep(FLUSH_SECONDS)
            try:
                if not await self._flush(run):
                    run.stop()
                    return
            except DatabaseUnavailableError as error:
                log.debug("could not store steps, trying again: %s", error)

    async def _flush(self, run: Run) -> bool:
        """False: the execution is not ours any more."""
        steps = run.mapper.steps
        until = storable(steps, is_continuable=run.is_continuable and bool(run.request.stream))
        if until <= run.stored:
            return True
        if not await self._store.append(run.taken, run.stored, steps[run.stored : until]):
            return False
        run.stored = until
        return True

    async def _pause(self, run: Run) -> None:
        """The execution ends before the response: keep what can be gone on from."""
        steps = run.mapper.steps
        until = storable(steps, is_continuable=run.is_continuable and bool(run.request.stream))
        del steps[max(until, run.stored) :]
        steps.append(["pause"])
        try:
            if await self._store.append(run.taken, run.stored, steps[run.stored :]):
                await self._store.pause(run.taken)
        except DatabaseUnavailableError as error:
            log.warning("could not store the state of a response: %s", error, extra={"response": run.taken.id})

    async def _put_back(self, run: Run, error: APIError) -> Result:
        await self._pause(run)
        return put_back_for(error)

    async def _finish(self, run: Run) -> None:
        """Store the end. While the database is away it is tried again: the lease keeps others from repeating it."""
        while True:
            try:
                await self._store.finish(run.taken, run.mapper.response, run.mapper.steps, now=self._wall())
                return
            except DatabaseUnavailableError as error:
                log.warning("could not store a response, trying again: %s", error, extra={"response": run.taken.id})
                await asyncio.sleep(SAVE_RETRY_SECONDS)


class _Watched:
    """A `Stream`: comments while a response is executed, then the result."""

    def __init__(self, run: Run | None, result: Result | None, is_stopping: Callable[[], bool] = lambda: False) -> None:
        self._run = run
        self._result = result
        self._is_stopping = is_stopping

    async def pump(self, sink: Sink) -> None:
        result = self._result
        if self._run is not None and (task := self._run.task) is not None:
            while not (await asyncio.wait({task}, timeout=WATCH_SECONDS))[0]:
                if not sink.put(b": running\n\n"):
                    await sink.room()
            if task.cancelled():
                result = Result("retry", "The execution was stopped.", 0.0)
            elif task.exception() is not None:
                result = Result("retry", f"{type(task.exception()).__name__}: {task.exception()}")
            else:
                result = task.result()
        if not sink.put(sse.event(msgspec.to_builtins(result))):
            await sink.room()

    async def aclose(self) -> None:
        """A worker that leaves does not stop the execution; a shutdown does."""
        if self._run is not None and self._is_stopping():
            self._run.stop()


class _Nowhere:
    """A sink of events that are made again from their steps."""

    def put(self, piece: bytes) -> bool:
        return True

    async def room(self) -> None: ...


def _is_prompted(request: ResponseRequest) -> bool:
    """A prompt's messages are not known here."""
    return request.prompt is not None or (request.model or "").startswith(MODEL_PREFIX)


def _encoded(members: Mapping[str, int]) -> dict[str, msgspec.Raw]:
    return {name: msgspec.Raw(msgspec.json.encode(value)) for name, value in members.items()}


def no_background_without_store() -> BadRequestError:
    return BadRequestError(
        "Background responses must be stored: 'background' needs 'store' to be true.",
        param="background",
        code="invalid_value",
    )


def put_back_for(error: APIError) -> Result:
    """The result of an execution that an error has ended for now. A limit or a full engine ends no response: it waits
    until its job's deadline."""
    after = error.retry_after if isinstance(error.retry_after, int) else None
    return Result("wait" if error.status == 429 else "retry", error.message, after)


def _may_succeed_later(error: APIError) -> bool:
    return error.status in RETRYABLE and error.code not in FOR_GOOD and not isinstance(error, BadRequestError)
