"""Asks endpoints for an answer: one after the other until one begins, and another where one is lost in the midst.

The selection says whom to ask; here they are asked, waited for, counted, and each attempt noted.
"""

import time
from collections.abc import Awaitable

from quarterdeck.errors import (
    APIError,
    BadRequestError,
    EngineError,
    EngineUnavailableError,
    RateLimitError,
    ServiceUnavailableError,
)
from quarterdeck.inference.call import FREE, Operation
from quarterdeck.inference.call_state import Call
from quarterdeck.inference.endpoints.sources import Endpoint
from quarterdeck.inference.engine.client import EngineAnswer, EngineClient
from quarterdeck.inference.metering.meter import error_code
from quarterdeck.inference.preparation import for_endpoint
from quarterdeck.inference.routing.directory import ServedModel
from quarterdeck.inference.routing.queueing import Queues
from quarterdeck.inference.routing.router import Choice
from quarterdeck.inference.streaming.resume import LostStream, ResumedStream, is_resumable, plan_continuation
from quarterdeck.protocol import requests
from quarterdeck.protocol.requests import Generation
from quarterdeck.record import Attempt
from quarterdeck.settings.config import GatewayConfig

GENERATING = (Operation.CHAT, Operation.COMPLETIONS)
ONLY_VLLM = (*FREE, Operation.SCORE)


class Attempts:
    """`deadline`, here, is the loop's time at which the whole request must be over."""

    def __init__(self, engines: EngineClient, queues: Queues) -> None:
        self._engines = engines
        self._queues = queues
        # A loop's time is this clock's; asking the loop for it costs a system call to find the loop.
        self._now = time.monotonic

    async def open(self, call: Call, deadline: float) -> EngineAnswer:
        """The first endpoint that begins to answer; those that fail before it are left for another. Raises APIError."""
        failure: APIError | None = None
        selection = call.selection
        waited_for: ServedModel | None = None
        while True:
            now = self._now()
            served = selection.aim(now)
            if served is not waited_for:
                waited_for = served
                if self._queues.must_wait(served):
                    if not await self._wait(call, served, deadline):
                        continue
                    now = self._now()
            choice = selection.next(now)
            if choice is None:
                break
            if choice.endpoint.kind != "vllm" or choice.endpoint.task != "generate":  # else it can do all
                _check_operation(choice.endpoint, call.head.operation)
            self._begin(call, choice)
            try:
                answer = await self._ask(call, choice, call.body, deadline)
            except APIError as error:
                self.end(call, error, time.time())
                failure = error
                now = self._now()
                if not selection.failed(choice, error, now) or now >= deadline:
                    break
            else:
                selection.succeeded(choice)
                return answer
        raise failure or _nobody_is_ready(call)

    async def go_on(
        self, call: Call, gateway: GatewayConfig, deadline: float, lost: LostStream
    ) -> ResumedStream | None:
        """Let another endpoint of the same model go on with the answer. None: nobody does, and the caller is told."""
        meter, members = call.meter, requests.members(call.body)
        origin, began = meter.endpoint, meter.engine_started
        request = meter.request
        if origin is None or not isinstance(request, Generation) or meter.resumed >= gateway.resumes:
            return None
        if not is_resumable(call.head.operation, members, request, lost.text):
            return None
        self.end(call, lost.error, time.time())
        tried = [origin]
        while len(tried) <= 1 + gateway.retries and self._now() < deadline:
            if (choice := call.selection.instead(tried, self._now())) is None:
                break
            endpoint = choice.endpoint
            tried.append(endpoint)
            self._begin(call, choice)
            meter.engine_started = began  # what an engine's seconds cost, the first one's cost as well
            model = endpoint.upstream_model or choice.served.name
            try:
                if (asked := await plan_continuation(self._engines, endpoint, model, members, request, lost)) is None:
                    self.end(call, None, time.time(), code="nothing_left")
                    break
                answer = await self._ask(call, choice, asked.body, deadline)
            except APIError as error:
                self.end(call, error, time.time(), status=error.engine_status)
                continue
            if answer.stream is not None:
                call.selection.succeeded(choice)
                return ResumedStream(answer.stream, asked.tokens, asked.repeated)
            self.end(call, EngineError("The engine's answer is no stream."), time.time())
        meter.endpoint = origin  # it gave what there is
        return None

    def end(
        self, call: Call, error: APIError | None, now: float, *, code: str | None = None, status: int | None = None
    ) -> None:
        """The attempt under way is over, if there is one. `now` is Unix seconds; `status` what the endpoint said."""
        endpoint = call.meter.endpoint
        if call.attempt is None or endpoint is None:
            return
        endpoint.end(call.selection.tokens)
        self._queues.left(endpoint)
        is_begun = call.meter.first_token is not None
        if is_begun and isinstance(error, EngineError) and error.code != "request_timeout":
            call.selection.broke_off(endpoint, self._now())
        if status is None:
            status = 200 if is_begun else (error.engine_status if error else 0)
        code = error_code(error) if error else code
        call.meter.attempts.append(Attempt(endpoint.id, call.attempt, now, status, code))
        call.attempt = None

    def _begin(self, call: Call, choice: Choice) -> None:
        call.attempt = call.meter.engine_started = time.time()
        call.meter.endpoint, call.meter.served = choice.endpoint, choice.served
        choice.endpoint.begin(call.selection.tokens)

    def _ask(self, call: Call, choice: Choice, body: bytes, deadline: float) -> Awaitable[EngineAnswer]:
        endpoint, head = choice.endpoint, call.head
        body = for_endpoint(body, endpoint, choice.renamed)
        return self._engines.open(
            endpoint, head.operation, body, head.engine_headers, limit=deadline, timeouts=choice.timeouts
        )

    async def _wait(self, call: Call, served: ServedModel, deadline: float) -> bool:
        """Until there is room. False: none came, and the selection has gone to another model."""
        principal = call.head.principal
        try:
            await self._queues.enter(
                served,
                team=principal.team,
                priority=principal.priority,
                tokens=call.reserved.total,
                until=deadline,
            )
        except (RateLimitError, ServiceUnavailableError) as error:
            if call.selection.refused(error):
                return False
            raise
        return True


def _check_operation(endpoint: Endpoint, operation: Operation) -> None:
    if endpoint.kind != "vllm" and operation in ONLY_VLLM:
        raise BadRequestError(
            f"The model '{endpoint.model}' is not served by vLLM, which alone can {operation.word}.",
            param="model",
            code="unsupported_operation",
        )
    if endpoint.task == "embed" and operation in GENERATING:
        raise BadRequestError(
            f"The model '{endpoint.model}' makes embeddings; it does not chat or complete.",
            param="model",
            code="unsupported_model",
        )


def _nobody_is_ready(call: Call) -> APIError:
    return EngineUnavailableError(
        f"No endpoint of the model '{call.meter.served.name}' is ready.",
        code="model_not_ready",
    )
