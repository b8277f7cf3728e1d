"""One request in the engine: queued, prefilled, then decoded step by step.

A step is one token of every output of the request; choices run side by side. `advance` returns how many steps are done
by now: a caller that is late by several tokens gets them at once, so an overloaded process sends less often, not later.
"""

from quarterdeck.simulator.engine import Engine
from quarterdeck.simulator.scheduling.block_pool import block_hashes
from quarterdeck.simulator.scheduling.engine_request import EngineRequest
from quarterdeck.simulator.scheduling.latency import between_tokens, to_first_token
from quarterdeck.simulator.scheduling.scheduler import ScheduledRequest


class Decoding:
    def __init__(self, engine: Engine, request: EngineRequest) -> None:
        self._engine = engine
        self._request = request
        self._lengths = [len(output.pieces) for output in request.outputs]
        self.total = max(self._lengths, default=0)
        self.done = 0
        self.cached_tokens = 0
        self._is_prefilled = False
        self._closed = False
        size = engine.config.block_size
        self._size = size
        self._tails = [len(prompt) % size for prompt in request.prompts for _ in range(request.n)]
        prompts = []
        if engine.blocks is not None and request.outputs:
            salt = (request.adapter, request.salt)
            prompts = [(block_hashes(prompt, size, salt), len(prompt)) for prompt in request.prompts]
        self._scheduled = ScheduledRequest(max(len(request.outputs), 1), prompts, self._private(0), request.adapter)
        self._arrived = self._admitted = self._first = self._last = self._due = engine.clock.now()

    def is_finished(self) -> bool:
        return self._is_prefilled and self.done >= self.total

    def reported_cached_tokens(self) -> int | None:
        """Return the prefix cache's hits for `usage`; None where the configuration hides them."""
        return self.cached_tokens if self._engine.config.enable_prompt_tokens_details else None

    def enqueue(self) -> None:
        """Start or queue the request. Raises VLLMError if the queue is full."""
        self._engine.scheduler.enqueue(self._scheduled)

    async def begin(self) -> None:
        """Wait until the request runs."""
        await self._engine.scheduler.wait_until_running(self._scheduled)
        self._admitted = self._engine.clock.now()
        self.cached_tokens = self._scheduled.allocation.cached_tokens
        self._plan_prefill(self.cached_tokens)
        metrics = self._engine.metrics
        if self._engine.blocks is not None and self._request.outputs:
            metrics.count("vllm:prefix_cache_queries", self._request.prompt_tokens)
            metrics.count("vllm:prefix_cache_hits", self.cached_tokens)
        metrics.observe("vllm:request_queue_time_seconds", self._admitted - self._arrived)

    async def advance(self, stride: int = 1) -> int:
        """Wait until at least `stride` more steps are done. Returns the number of steps done."""
        clock, config = self._engine.clock, self._engine.config
        while not self._engine.scheduler.grow(self._scheduled, self._private(min(self.done + stride, self.total))):
            await self._preempted()
        goal = min(self.done + (stride if self._is_prefilled else 1), self.total)
        done, due, last = self.done, self._due, self._due
        while done < goal:
            last, done, due = due, done + 1, due + self._token_interval()
        await clock.sleep_until(last)
        now = clock.now()
        if config.inter_token_latency == 0:
            done = self.total
        while done < self.total and due <= now:
            done, due = done + 1, due + self._token_interval()
        before, self.done, self._due = self.done, done, due
        self._count(before, now)
        return done

    def close(self, *, aborted: bool = False) -> None:
        """Free the request's slot and blocks, and count its end."""
        if self._closed:
            return
        self._closed = True
        written: list[int] = []
        if self._engine.blocks is not None and self._request.outputs:
            prompt, output = self._request.prompts[0], self._request.outputs[0]
            whole = [*prompt, *output.pieces[: self.done]]
            known = len(self._scheduled.prompts[0][0])
            written = block_hashes(whole, self._size, (self._request.adapter, self._request.salt))[known:]
        self._engine.scheduler.release(self._scheduled, written)
        self._count_end(aborted)

    async def _preempted(self) -> None:
        self._engine.metrics.count("vllm:num_preemptions")
        await self._engine.scheduler.preempt(self._scheduled)
        self._plan_prefill(self._scheduled.allocation.cached_tokens, self.done)

    def _plan_prefill(self, cached: int, written: int = 0) -> None:
        engine = self._engine
        uncached = max(self._request.prompt_tokens + written - cached, 0)
        self._due = engine.clock.now() + to_first_token(
            engine.config, engine.random, uncached=uncached, running=engine.scheduler.running
        )

    def _token_interval(self) -> float:
        engine = self._engine
        if not engine.config.inter_token_latency:
            return 0.0
        return between_tokens(engine.config, engine.random, running=engine.scheduler.running)

    def _private(self, done: int) -> int:
        """Return the private blocks after `done` steps: the prompt's last, partial one and those that outputs fill."""
        if self._engine.blocks is None:
            return 0
        return sum(
            -(-(tail + min(length, done)) // self._size)
            for tail, length in zip(self._tails, self._lengths, strict=False)
        )

    def _count(self, before: int, now: float) -> None:
        metrics, request = self._engine.metrics, self._request
        if not self._is_prefilled:
            self._is_prefilled = True
            self._first = now
            computed = request.prompt_tokens - self.cached_tokens
            metrics.count("vllm:prompt_tokens", request.prompt_tokens)
            metrics.count("vllm:prompt_tokens_cached", self.cached_tokens)
            metrics.count("vllm:prompt_tokens_by_source", computed, "local_compute")
            metrics.count("vllm:prompt_tokens_by_source", self.cached_tokens, "local_cache_hit")
            metrics.observe("vllm:request_prefill_kv_computed_tokens", computed)
            if request.outputs:
                metrics.time_to_first_token.observe(now - self._arrived)
        steps = self.done - before
        if steps and before:
            metrics.inter_token_latency.observe((now - self._last) / steps, steps)
        elif steps > 1:
            metrics.inter_token_latency.observe(0.0, steps - 1)
        self._last = now
        if len(self._lengths) == 1:
            tokens = steps
        else:
            tokens = sum(min(length, self.done) - min(length, before) for length in self._lengths)
        if tokens:
            metrics.count("vllm:generation_tokens", tokens)
            metrics.observe("vllm:iteration_tokens_total", tokens)

    def _count_end(self, aborted: bool) -> None:
        metrics, request = self._engine.metrics, self._request
        now = self._engine.clock.now()
        for output, length in zip(request.outputs, self._lengths, strict=True):
            ended = self._is_prefilled and self.done >= length and not aborted
            metrics.count("vllm:request_success", 1, output.finish_reason if ended else "abort")
            metrics.observe("vllm:request_generation_tokens", min(length, self.done))
        metrics.observe("vllm:request_prompt_tokens", request.prompt_tokens)
        metrics.observe("vllm:e2e_request_latency_seconds", now - self._arrived)
        metrics.observe("vllm:request_inference_time_seconds", now - self._admitted)
        metrics.observe("vllm:request_prefill_time_seconds", max(self._first - self._admitted, 0.0))
        if not request.outputs:
            return
        metrics.observe("vllm:request_decode_time_seconds", max(self._last - self._first, 0.0))
        metrics.observe("vllm:request_params_n", request.n)
        metrics.observe("vllm:request_params_max_tokens", request.max_tokens)
        metrics.observe("vllm:request_max_num_generation_tokens", request.max_tokens)
        if self.done > 1:
            metrics.observe("vllm:request_time_per_output_token_seconds", (self._last - self._first) / (self.done - 1))
