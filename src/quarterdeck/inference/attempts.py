"""Calls endpoints: one after another until one begins to answer, and another one when a stream is lost.

`routing/selection` picks the endpoints. Here a request waits for a place, and each attempt is counted in the endpoint's
load and noted for the record.
"""

import math
import time
from collections.abc import Awaitable, Callable, Sequence

import msgspec

from quarterdeck.errors import (
    APIError,
    BadRequestError,
    EngineError,
    EngineUnavailableError,
    NotFoundError,
    RateLimitError,
    ServiceUnavailableError,
)
from quarterdeck.inference.call import FREE, Operation
from quarterdeck.inference.call_state import Call
from quarterdeck.inference.endpoints.endpoint import Endpoint, Endpoints
from quarterdeck.inference.engine.client import EngineAnswer, EngineClient
from quarterdeck.inference.engine.error_translation import with_engine_status
from quarterdeck.inference.metering.meter import error_code
from quarterdeck.inference.metering.token_counting import can_be_counted, count_prompt
from quarterdeck.inference.preparation import adapt_body
from quarterdeck.inference.request import InferenceRequest
from quarterdeck.inference.routing.directory import ServedModel
from quarterdeck.inference.routing.queueing import Queues
from quarterdeck.inference.routing.selection import Choice
from quarterdeck.inference.streaming.resume import (
    Continuation,
    LostStream,
    ResumedStream,
    has_caught_up,
    is_resumable,
    plan_continuations,
)
from quarterdeck.model_lifecycle.status import WORDS, about
from quarterdeck.protocol import requests
from quarterdeck.protocol.foreign.expected import expected_answer
from quarterdeck.protocol.requests import GenerationRequest
from quarterdeck.record import Attempt
from quarterdeck.settings.config import GatewayConfig

GENERATING = (Operation.CHAT, Operation.COMPLETIONS)
MAX_RETRY_AFTER = 3600
"""Seconds. A download may take longer; a client that asks once an hour costs nothing."""
VLLM_ONLY = (*FREE, Operation.SCORE, Operation.CLASSIFY)


class Attempts:
    """Opens answers and resumes lost streams. `deadline`: when the whole request must have ended, in the event loop's
    time."""

    def __init__(
        self,
        engines: EngineClient,
        endpoints: Endpoints,
        queues: Queues,
        afford: Callable[[Call, ServedModel], Awaitable[None]],
        is_configured: Callable[[str], bool] = lambda model: True,
    ) -> None:
        """`afford` has budgets hold what the call can cost at another model than its own; it raises APIError where they
        have no room for that. `is_configured`: whether a model is, now."""
        self._is_configured = is_configured
        self._engines = engines
        self._endpoints = endpoints
        self._queues = queues
        self._afford = afford
        # The event loop uses this clock too; to ask it, it has to be found first, which costs a system call.
        self._now = time.monotonic

    async def open(self, call: Call, deadline: float) -> EngineAnswer:
        """The answer of the first endpoint that begins one. Raises APIError where all have failed."""
        failure: APIError | None = None
        selection = call.selection
        waited_for: ServedModel | None = None
        affordable = call.meter.served
        while True:
            now = self._now()
            served = selection.current(now)
            if served is not affordable:
                if not await self._can_afford(call, served):
                    continue
                affordable, now = served, self._now()
            if served is not waited_for:
                waited_for = served
                if self._queues.must_wait(served, is_streaming=call.request.is_streaming):
                    call.meter.queued = call.meter.queued or time.time()
                    if not await self._wait(call, served, deadline):
                        continue
                    now = self._now()
            choice = selection.next(now)
            if choice is None:
                break
            if choice.served is not affordable:  # the model that it would have gone to has no endpoint
                if not await self._can_afford(call, choice.served):
                    continue
                affordable = choice.served
            if choice.endpoint.spec.kind != "vllm" or choice.endpoint.spec.task != "generate":
                _check_operation(choice.endpoint, call.head.operation)
            self._begin(call, choice)
            try:
                answer = await self._call(call, choice, call.body, deadline)
            except APIError as error:
                self.end(call, error, time.time())
                failure = error
                now = self._now()
                if not selection.failed(choice, error, now) or now >= deadline:
                    break
            else:
                selection.succeeded(choice)
                return answer
        raise failure or self._not_ready(call)

    async def count_prompt(self, request: InferenceRequest, served: ServedModel, body: bytes) -> int | None:
        """The prompt's tokens, by the tokenizer of one of the model's endpoints. None: none can count it."""
        if not can_be_counted(request):
            return None
        for endpoint in self._endpoints.serving(served.name):
            if endpoint.spec.kind == "vllm" and endpoint.breaker.is_offered(self._now()):
                return await count_prompt(self._engines, endpoint, served.name, body)
        return None

    async def _can_afford(self, call: Call, served: ServedModel) -> bool:
        """False: a budget has no room for this model, and the selection has moved to another."""
        try:
            await self._afford(call, served)
        except APIError as error:
            if call.selection.not_admitted(error):
                return False
            raise
        return True

    async def resume(
        self, call: Call, gateway: GatewayConfig, deadline: float, lost: LostStream
    ) -> ResumedStream | None:
        """Continue a lost stream on another endpoint of the same model.

        None: it can't be resumed, or no other endpoint could.
        """
        meter, members = call.meter, requests.members(call.body)
        origin, began = meter.endpoint, meter.engine_started
        parsed = call.request.parsed
        if origin is None or not isinstance(parsed, GenerationRequest) or meter.resumed >= gateway.resumes:
            return None
        if not is_resumable(call.head.operation, members, parsed, lost.text):
            return None
        self.end(call, lost.error, time.time())
        tried, weights = [origin], call.weights
        while len(tried) <= 1 + gateway.retries and self._now() < deadline:
            if (choice := call.selection.replacement(tried, weights, self._now())) is None:
                break
            endpoint = choice.endpoint
            tried.append(endpoint)
            self._begin(call, choice)
            meter.engine_started = began  # engine seconds count from the first attempt: they are billed as well
            model = endpoint.spec.name_of(choice.served.name) or choice.served.name
            try:
                plans = await plan_continuations(self._engines, endpoint, model, members, parsed, lost)
                if not plans:
                    self.end(call, None, time.time(), code="nothing_left")
                    break
                resumed = await self._continue(call, choice, plans, deadline)
            except APIError as error:
                self.end(call, error, time.time(), status=error.engine_status)
                continue
            if resumed is not None:
                call.selection.succeeded(choice)
                return resumed
            self.end(call, None, time.time(), code="resume_diverged")
        meter.endpoint = origin  # the record names the endpoint that answered
        return None

    async def _continue(
        self, call: Call, choice: Choice, plans: Sequence[Continuation], deadline: float
    ) -> ResumedStream | None:
        """The first stream that repeats what its request left out. None: there is none. Raises APIError."""
        for plan in plans:
            stream = (await self._call(call, choice, plan.body, deadline)).stream
            if stream is None:
                raise with_engine_status(EngineError("The engine did not answer with a stream."), 200)
            is_continued = False
            try:
                # White space alone may differ: what was sent can't be taken back, and the words are the same.
                is_continued = not plan.repeated.strip() or await has_caught_up(stream, plan.repeated)
            finally:
                if not is_continued:
                    stream.close()
            if is_continued:
                return ResumedStream(stream, plan.tokens, plan.repeated)
        return None

    def end(
        self, call: Call, error: APIError | None, now: float, *, code: str | None = None, status: int | None = None
    ) -> None:
        """End the running attempt, if there is one. `now`: Unix seconds; `status`: the endpoint's own."""
        endpoint = call.meter.endpoint
        if call.attempt is None or endpoint is None:
            return
        endpoint.load.end(call.selection.tokens)
        if call.head.principal.priority < 0:
            endpoint.load.of_batches -= 1
        self._queues.released(endpoint)
        has_begun = call.meter.first_token is not None
        if has_begun and isinstance(error, EngineError) and error.code != "request_timeout":
            call.selection.interrupted(endpoint, self._now())
        if has_begun and error is not None and error.is_refusal:
            call.selection.balancer.report_refusal(endpoint, error, self._now())
        if status is None:
            status = 200 if has_begun else (error.engine_status if error else 0)
        code = error_code(error) if error else code
        attempts = call.meter.attempts
        model = call.meter.served.name if attempts or code is not None else ""
        attempts.append(Attempt(endpoint.id, call.attempt, now, status, code, model))
        call.attempt = None

    def _not_ready(self, call: Call) -> APIError:
        served = call.meter.served
        if not self._is_configured(served.model):  # removed while the request waited
            why = f"The model '{served.public_name}' does not exist or you do not have access to it."
            return NotFoundError(why, param="model", code="model_not_found")
        status = self._endpoints.status(served.model)
        seconds = None if status is None else status.seconds_left if status.is_starting else status.retry_seconds
        retry_after = None if seconds is None else min(MAX_RETRY_AFTER, max(1, math.ceil(seconds)))
        if reason := self._endpoints.unavailable(served.name) or self._endpoints.unavailable(served.model):
            why = f"The model '{served.public_name}' is not available: {reason}"
        elif (starting := self._queues.starting(served)) is not None:
            when = f" ({about(starting.seconds_left)})" if starting.seconds_left is not None else ""
            doing = starting.detail or WORDS[starting.state]
            why = f"The model '{served.public_name}' is being started{when}: {doing}."
            self._queues.on_refused(served.model)
        else:
            why = f"No endpoint of the model '{served.public_name}' is ready."
            self._queues.on_refused(served.model)
        return EngineUnavailableError(why, code="model_not_ready", retry_after=retry_after)

    def _begin(self, call: Call, choice: Choice) -> None:
        call.attempt = call.meter.engine_started = time.time()
        call.meter.endpoint, call.meter.served = choice.endpoint, choice.served
        load = choice.endpoint.load
        load.begin(call.selection.tokens)
        if call.head.principal.priority < 0:
            load.of_batches += 1
        else:
            load.last_other = call.attempt

    def _call(self, call: Call, choice: Choice, body: bytes, deadline: float) -> Awaitable[EngineAnswer]:
        if call.opens is not None:
            return call.opens(choice, deadline)
        endpoint, head = choice.endpoint, call.head
        spec, renamed, public_name = endpoint.spec, choice.renamed, None
        if spec.kind != "vllm":
            return self._call_foreign(call, choice, body, deadline)
        call.weights = spec.version
        if spec.engine_names:
            name = choice.served.name
            call.weights = spec.weights_of(name)
            if engine_name := spec.engine_names.get(name):
                renamed = engine_name
                if engine_name != (shown := choice.served.public_name):
                    public_name = (engine_name, shown)
        there = spec.upstream_model or renamed
        if there is not None and there != call.selection.target.name:  # which the body was prepared for
            body = adapt_body(body, endpoint, renamed)
        return self._engines.open(
            endpoint,
            head.operation,
            body,
            head.engine_headers() if head.trace is None else head.traced_headers(len(call.meter.attempts)),
            limit=deadline,
            timeouts=choice.timeouts,
            public_name=public_name,
            is_stream=call.request.is_streaming,
        )

    async def _call_foreign(self, call: Call, choice: Choice, body: bytes, deadline: float) -> EngineAnswer:
        """Call a server that is not vLLM. What it refuses and the answer doesn't depend on is left out from then on."""
        endpoint, head, request = choice.endpoint, call.head, call.request
        expected = expected_answer(head.operation, request.parsed, choice.served.name)
        bounds = choice.served.bounds
        cap = bounds.output if call.caps_others and bounds.context is None else None
        while True:
            sent = adapt_body(body, endpoint, choice.renamed, cap=cap)
            try:
                return await self._engines.open(
                    endpoint,
                    head.operation,
                    sent,
                    head.engine_headers(),
                    limit=deadline,
                    timeouts=choice.timeouts,
                    is_stream=request.is_streaming,
                    expected=expected,
                )
            except BadRequestError as error:
                members = msgspec.json.decode(sent, type=dict[str, msgspec.Raw])
                if not endpoint.learn(members, error.message, error.param):
                    raise
            except EngineError as error:
                # Some servers answer a request for base64 with no embeddings.
                is_answer = error.engine_status == 200 and expected.encoding == "base64"
                if not (is_answer and endpoint.learn({"encoding_format": 0}, "unsupported", "encoding_format")):
                    raise

    async def _wait(self, call: Call, served: ServedModel, deadline: float) -> bool:
        """Wait in the model's queue. False: there was no room in time, and the selection has moved to another model."""
        principal = call.head.principal
        try:
            await self._queues.enter(
                served,
                org=principal.org,
                team=principal.team,
                priority=principal.priority,
                tokens=call.reserved.total,
                until=deadline,
                is_streaming=call.request.is_streaming,
            )
        except (RateLimitError, ServiceUnavailableError) as error:
            if call.selection.not_admitted(error):
                return False
            raise
        return True


def _check_operation(endpoint: Endpoint, operation: Operation) -> None:
    if endpoint.spec.kind != "vllm" and operation in VLLM_ONLY:
        raise BadRequestError(
            f"The model '{endpoint.spec.model}' does not support the operation '{operation.word}', as it is not served "
            "by vLLM.",
            param="model",
            code="unsupported_operation",
        )
    if endpoint.spec.task == "embed" and operation in GENERATING:
        raise BadRequestError(
            f"The model '{endpoint.spec.model}' is an embedding model and does not support {operation.word}.",
            param="model",
            code="unsupported_model",
        )
