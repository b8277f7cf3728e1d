"""Background responses: queued by one request, executed by another that a worker sends, and independent of both.

The execution is a task of this gateway with a lease on the response (`store.background_responses`): a worker that dies
does not stop it, and a gateway that dies is replaced by the next attempt of the job, which goes on from the stored
steps (`background_steps`). It is stopped where the response is cancelled or deleted, and at the end of the process.
"""

import asyncio
import itertools
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any

import msgspec

from quarterdeck import ids
from quarterdeck.accounting.principal import Principal
from quarterdeck.errors import APIError, AuthenticationError, BadRequestError, ServiceUnavailableError
from quarterdeck.inference.call import Head, Reply
from quarterdeck.inference.streaming.resume import continuation_body, is_resumable
from quarterdeck.protocol import requests, sse
from quarterdeck.protocol.job_credentials import JobClaims
from quarterdeck.protocol.requests import ChatCompletionRequest
from quarterdeck.resources.responses.background_run import Run
from quarterdeck.resources.responses.background_steps import mapper_of, storable, turn_name, unfinished
from quarterdeck.resources.responses.engine_calls import Pipeline, call_engine
from quarterdeck.resources.responses.execution import Execution
from quarterdeck.resources.responses.history import History
from quarterdeck.resources.responses.requests import ResponseRequest, read_request
from quarterdeck.resources.responses.tool_loop.approvals import approved
from quarterdeck.resources.responses.tool_loop.sessions import NoToolSessions, OpensTools
from quarterdeck.resources.responses.watching import Result, Watched, may_succeed_later, put_back_for
from quarterdeck.settings.prompts import MODEL_PREFIX
from quarterdeck.store.background_responses import BackgroundStore
from quarterdeck.store.background_responses import Execution as Taken
from quarterdeck.store.database import DatabaseUnavailableError

log = logging.getLogger(__name__)

LEASE_SECONDS = 20.0
"""How long a response waits for another gateway after its own has died."""
RENEWALS_PER_CHECK = 10
"""How often it is looked whether the keys of running responses are still valid: each ten seconds."""
RENEW_SECONDS = 1.0
"""Between two renewals of all leases, in one statement: how soon another gateway's cancellation stops an engine."""
FLUSH_SECONDS = 0.25
"""Between two writes of the steps of a streamed response."""
SAVE_RETRY_SECONDS = 1.0
LIMITS: tuple[str, ...] = ("max_tokens", "max_completion_tokens")


async def _as_it_is(principal: Principal) -> Principal:
    return principal


class Background:
    """Executes background responses.

    `abandon` settles an engine call whose gateway died, by the ids of its organisation and its request. `can_continue`:
    whether all engines that may answer for a model can continue a text. `is_stopping`: this process is shutting down.
    `confirm` reads a key as it is now. Raises AuthenticationError, and ServiceUnavailableError.
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
        confirm: Callable[[Principal], Awaitable[Principal]] = _as_it_is,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._pipeline = pipeline
        self._store = store
        self._history = history
        self._abandon = abandon
        self._can_continue = can_continue
        self._tools = tools or NoToolSessions()
        self._is_stopping = is_stopping
        self._confirm = confirm
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
                return Reply(200, sse.HEADERS, stream=Watched(None, Result("done" if taken == "ended" else "busy")))
            run = self._start(head, taken, body)
        return Reply(200, sse.HEADERS, stream=Watched(run, None, self._is_stopping))

    async def run(self) -> None:
        """Renew the leases of the responses that run here, and stop those that are not ours any more, until cancelled;
        then stop all."""
        try:
            for count in itertools.count(1):
                await asyncio.sleep(RENEW_SECONDS)
                if self._runs:
                    await self._renew()
                    if count % RENEWALS_PER_CHECK == 0:
                        await self._check_keys()
        finally:
            running = [run.task for run in self._runs.values() if run.task is not None]
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    def stop(self, response: str) -> None:
        """It was cancelled or deleted: stop it at once where it runs here."""
        if (run := self._runs.get(response)) is not None:
            run.is_over = True
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
                await self._lose(run)

    async def _check_keys(self) -> None:
        """Fail the responses whose key was revoked or deleted: they may run for long, and are charged to it."""
        for principal in list({run.principal.key: run.principal for run in self._runs.values()}.values()):
            try:
                await self._confirm(principal)
            except AuthenticationError as error:
                for run in [each for each in self._runs.values() if each.principal.key == principal.key]:
                    run.refuse(error)
            except ServiceUnavailableError:
                return  # asked again later

    async def _lose(self, run: Run) -> None:
        """Stop an execution that is not ours any more: the response was cancelled or deleted, or another gateway has
        taken it over."""
        try:
            run.is_over = await self._store.read_open(run.taken.id, run.taken.owner.org) is None
        except DatabaseUnavailableError as error:
            log.warning("could not see what ended an execution: %s", error, extra={"response": run.taken.id})
        run.stop()

    def _start(self, head: Head, taken: Taken, body: bytes) -> Run:
        request, engine = read_request(body)
        mapper = mapper_of(taken.body, shows_logprobs=taken.shows_logprobs)
        mapper.start()
        mapper.feed(list(taken.steps))
        run = Run(taken, mapper, request, head.principal)
        head = msgspec.structs.replace(head, parent=taken.id, started=self._wall(), repeats=run.is_repeated)
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
            if may_succeed_later(error):
                return await self._put_back(run, error)
            mapper.fail(error)
        except asyncio.CancelledError:
            if run.refusal is None:
                await self._pause(run, has_record=False)
                raise
            if run.task is not None:
                run.task.uncancel()
            failure = run.refusal
            mapper.fail(run.refusal)
        finally:
            flushing.cancel()
            await asyncio.gather(flushing, return_exceptions=True)
        if failure is not None and may_succeed_later(failure):  # what is stored can be gone on from
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
                await self._lose(run)
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
                    await self._lose(run)
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

    async def _pause(self, run: Run, *, has_record: bool) -> None:
        """The execution ends before the response: keep what can be gone on from. `has_record`: the engine call of this
        turn has ended with a record of its own, so the next one is another request."""
        steps = run.mapper.steps
        until = storable(steps, is_continuable=run.is_continuable and bool(run.request.stream))
        del steps[max(until, run.stored) :]
        if has_record:
            steps.append(["pause"])
        try:
            if len(steps) == run.stored or await self._store.append(run.taken, run.stored, steps[run.stored :]):
                await self._store.pause(run.taken)
        except DatabaseUnavailableError as error:
            log.warning("could not store the state of a response: %s", error, extra={"response": run.taken.id})

    async def _put_back(self, run: Run, error: APIError) -> Result:
        await self._pause(run, has_record=True)
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
